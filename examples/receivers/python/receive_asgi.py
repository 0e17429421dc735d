"""Receive Bellwire's webhooks in any ASGI server, here uvicorn. The secret may be a whsec_ or a whpk_.

BELLWIRE_SECRET=whpk_... uvicorn --app-dir examples/receivers/python receive_asgi:app --port 8000
"""

import os
from typing import Any

from bellwire.errors import SignatureInvalid
from bellwire.webhooks import verify

#: Ids of the deliveries that were handled. In production, keep them in your database, in the transaction that does the work.
HANDLED: set[bytes] = set()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":  # this endpoint has no lifespan and no WebSocket
        return
    body, message = b"", {"more_body": True}
    while message.get("more_body"):
        body += (message := await receive()).get("body", b"")
    headers = dict(scope["headers"])
    try:
        event = verify(os.environ["BELLWIRE_SECRET"], scope["headers"], body)
        if headers[b"webhook-id"] not in HANDLED:
            HANDLED.add(headers[b"webhook-id"])
            print(event, flush=True)
        status = 204
    except SignatureInvalid:
        status = 401
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body"})
