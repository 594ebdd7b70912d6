"""A server on the loopback that answers as the hub of Hugging Face does, as far as a model goes."""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

TOKEN = "hf_of_the_tests"


class Hub:
    """Repositories in memory.

    Attributes:
      repos: name -> whether it is private, and its files.
      address: of the server.
    """

    def __init__(self, address: str):
        self.address = address
        self.repos: dict[str, dict] = {}

    def make(self, name: str, private: bool, **files: bytes) -> None:
        self.repos[name] = {"private": private, "files": files}

    def get(self, path: str):
        """A JSON value, or a file's bytes; None for what is not there."""
        kind, _, rest = path.strip("/").partition("/")
        if kind != "api":
            name, _, file = path.strip("/").partition("/resolve/")
            return self.repos.get(name, {"files": {}})["files"].get(file.partition("/")[2])
        name = "/".join(rest.split("/")[1:3])
        if name not in self.repos:
            return None
        files = self.repos[name]["files"]
        if "/tree/" in rest:
            told = {"type": "file", "oid": "0" * 40}
            return [{**told, "path": path, "size": len(x)} for path, x in files.items()]
        siblings = [{"rfilename": file} for file in files]
        private = self.repos[name]["private"]
        return {"id": name, "sha": "1" * 40, "private": private, "siblings": siblings}

    def post(self, path: str, body: bytes):
        rest = path.removeprefix("/api/")
        if rest == "repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'user'}/{asked['name']}"
            private = asked.get("private") or asked.get("visibility") == "private"
            self.make(name, bool(private))
            return {"url": f"{self.address}/{name}"}
        name = "/".join(rest.split("/")[1:3])
        if "/preupload/" in rest:
            asked = json.loads(body)["files"]
            told = {"uploadMode": "regular", "shouldIgnore": False}
            return {"files": [{"path": one["path"], **told} for one in asked]}
        if "/commit/" in rest:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.repos[name]["files"][line["value"]["path"]] = content
            url = f"{self.address}/{name}/commit/{'1' * 40}"
            return {"success": True, "commitOid": "1" * 40, "commitUrl": url}
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def _answer(self, found) -> None:
        status, headers = 200, {}
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status, found = 401, {"error": "Invalid credentials"}
        elif found is None:
            status, found = 404, {"error": "Repository not found"}
            headers["X-Error-Code"] = "RepoNotFound"
        content = found if isinstance(found, bytes) else json.dumps(found).encode()
        headers |= {"Content-Length": str(len(content)), "X-Repo-Commit": "1" * 40}
        headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self) -> None:
        self._answer(self.hub.get(urlsplit(self.path).path))

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(self.hub.post(urlsplit(self.path).path, body))

    def log_message(self, *_) -> None:
        pass


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """The server, for the body."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
        server.RequestHandlerClass = type("Handler", (_Handler,), {"hub": hub})
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()
