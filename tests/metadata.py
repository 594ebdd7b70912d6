"""A metadata server as Google's, on this machine's loopback."""

import http.server
import threading


class Metadata:
    """Answers with `values`, by attribute; `asked` has what was asked for.

    Attributes:
      address: for `GCE_METADATA_IP`.
    """

    def __init__(self, values: dict[str, str]):
        self.values, self.asked = values, []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"127.0.0.1:{self._server.server_port}"

    def _handler(self):
        metadata = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.removeprefix("/computeMetadata/v1/instance/attributes/")
                metadata.asked.append(name)
                known = name in metadata.values and self.headers["Metadata-Flavor"] == "Google"
                self.send_response(200 if known else 404)
                self.end_headers()
                self.wfile.write(metadata.values.get(name, "").encode())

            def log_message(self, *_):
                pass

        return Handler

    def __enter__(self) -> "Metadata":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
