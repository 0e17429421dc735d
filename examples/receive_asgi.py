"""Receive Bellwire's webhooks in any ASGI server, here uvicorn; the secret may be a whsec_ or a whpk_:

BELLWIRE_SECRET=whpk_... uvicorn examples.receive_asgi:app
"""

import os
from typing import Any

from bellwire.errors import SignatureInvalid
from bellwire.webhooks import verify


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body, message = b"", {"more_body": True}
    while message.get("more_body"):
        body += (message := await receive()).get("body", b"")
    try:
        print(verify(os.environ["BELLWIRE_SECRET"], scope["headers"], body), flush=True)
        status = 204  # once the event is stored; drop a webhook-id that came before
    except SignatureInvalid:
        status = 401
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body"})
