"""Receive Bellwire's webhooks with the standard library's HTTP server and `bellwire`.

    BELLWIRE_SECRET=whsec_... python examples/receivers/python/receive_webhook.py 8000

It verifies the signature over the raw body, drops repetitions and responds with 204.
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bellwire.errors import SignatureInvalid
from bellwire.webhooks import verify

#: Ids of the deliveries that were handled. In production, keep them in your database, in the transaction that does the work.
HANDLED: set[str] = set()


class Endpoint(BaseHTTPRequestHandler):
    timeout = 10

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            event = verify(os.environ["BELLWIRE_SECRET"], self.headers, body)
        except SignatureInvalid as error:
            self.respond(401, str(error))
            return
        # Delivery is at least once: an event may arrive again, with the same webhook-id.
        if self.headers["webhook-id"] not in HANDLED:
            HANDLED.add(self.headers["webhook-id"])
            print(event["type"], event["id"], event.get("data"), flush=True)
        self.respond(204)

    def respond(self, status: int, text: str = "") -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        """Log no requests; the events are printed."""


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000), Endpoint)
    print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
