"""Receive Bellwire's webhooks with Python's standard library only.

BELLWIRE_SECRET=whsec_... python examples/receivers/python/receive_standard_library.py 8000
"""

import base64
import hmac
import json
import os
import queue
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = base64.b64decode(os.environ["BELLWIRE_SECRET"].removeprefix("whsec_"), validate=True)
TOLERANCE_SECONDS, MAX_BODY_BYTES = 300, 1_048_576
# In production SEEN and INBOX are one database table with webhook-id as its key.
SEEN, LOCK = set[str](), threading.Lock()
INBOX: queue.Queue[tuple[str, bytes]] = queue.Queue()


def is_valid(webhook_id: str, timestamp: str, signatures: str, body: bytes) -> bool:
    if not webhook_id or not re.fullmatch("[0-9]{1,12}", timestamp):
        return False
    expected = b"v1," + base64.b64encode(hmac.digest(KEY, f"{webhook_id}.{timestamp}.".encode() + body, "sha256"))
    # While a secret is rotated, the header holds several signatures; one match is enough.
    matches = [hmac.compare_digest(expected, each.encode()) for each in signatures.split()]
    return any(matches) and abs(time.time() - int(timestamp)) <= TOLERANCE_SECONDS


class Endpoint(BaseHTTPRequestHandler):
    timeout = 10

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length", "0"))
        body = self.rfile.read(min(length, MAX_BODY_BYTES))
        webhook_id, *signed = (self.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature"))
        valid = is_valid(webhook_id, *signed, body)
        with LOCK:
            if valid and webhook_id not in SEEN:  # a retry has the same id
                SEEN.add(webhook_id)
                INBOX.put((webhook_id, body))
        self.send_response(204 if valid else 401)
        self.end_headers()


def work() -> None:
    while True:
        webhook_id, body = INBOX.get()
        print(webhook_id, json.loads(body), flush=True)


if __name__ == "__main__":
    threading.Thread(target=work, daemon=True).start()
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000), Endpoint)
    print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
