"""Serves the page and the service worker, and the public key at /key: python server.py 8080 PUBLIC_KEY."""

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(SimpleHTTPRequestHandler):
    """The files of this folder, and the key."""

    def do_GET(self) -> None:
        if self.path == "/key":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(sys.argv[2].encode())
        else:
            super().do_GET()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("give the port and the public key of [vapid.default]: python server.py 8080 BCVx…")
    files = partial(Handler, directory=str(Path(__file__).parent))
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), files)
    # Browsers allow service workers over https, and on localhost over http.
    print(f"listening on http://localhost:{server.server_port}/", flush=True)
    server.serve_forever()
