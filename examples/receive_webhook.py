"""Receive Bellwire's webhooks: verify the signature over the raw body, drop what came before, answer 204.

    BELLWIRE_SECRET=whsec_... python examples/receive_webhook.py 8000

Standard library and `bellwire` only. Answer quickly, within seconds, and do slow work afterwards; a 5xx brings the
event back later, a 410 ends the subscription.
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bellwire.errors import SignatureInvalid
from bellwire.webhooks import verify

#: Ids of deliveries that were handled. Keep them in your database, in the transaction that does the work.
HANDLED: set[str] = set()


class Hooks(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            event = verify(os.environ["BELLWIRE_SECRET"], self.headers, body)
        except SignatureInvalid as error:
            self.answer(401, str(error))
            return
        # At least once means that an event may come twice; each time with the same id.
        if self.headers["webhook-id"] not in HANDLED:
            HANDLED.add(self.headers["webhook-id"])
            print(event["type"], event["id"], event.get("data"), flush=True)
        self.answer(204)

    def answer(self, status: int, text: str = "") -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        """Requests are not logged: what is worth telling is printed above."""


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000), Hooks)
    print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
