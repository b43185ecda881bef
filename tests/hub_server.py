"""A local stand-in for the Hugging Face hub: the few addresses that a push and a pull ask."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub(ThreadingHTTPServer):
    """Repositories by name, each a list of commits: identifier and files."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.repositories.get(name, [])
        if revision in ("main", "") and commits:
            return commits[-1]
        return next((one for one in commits if one[0] == revision), None)

    def commit(self, name: str, changes: dict[str, bytes]) -> str:
        commits = self.repositories.setdefault(name, [])
        files = {**(commits[-1][1] if commits else {}), **changes}
        number = hashlib.sha1(f"{name}{len(commits)}".encode(), usedforsecurity=False).hexdigest()
        commits.append((number, files))
        return number


@contextmanager
def running_hub() -> Iterator[Hub]:
    """The stand-in, until the block ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        path, body = self._path(), self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.server.repositories.setdefault(name, [])
            self._json({"url": f"{self.server.url}/{name}"})
        elif match := re.fullmatch(r"/api/models/(\S+/\S+)/preupload/\w+", path):
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            self._json({"files": files})
        elif match := re.fullmatch(r"/api/models/(\S+/\S+)/commit/\w+", path):
            lines = [json.loads(line)["value"] for line in body.splitlines()]
            changes = {one["path"]: base64.b64decode(one["content"]) for one in lines[1:]}
            number = self.server.commit(match[1], changes)
            url = f"{self.server.url}/{match[1]}/commit/{number}"
            self._json({"commitUrl": url, "commitOid": number})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        else:
            self._json({"error": "no such address"}, status=404)

    def do_GET(self) -> None:
        path = self._path()
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(\w+))?", path):
            result = self.server.files(match[1], match[2] or "main")
            if result is None:
                self._missing("RepoNotFound")
                return
            names = [{"rfilename": name} for name in result[1]]
            self._json({"id": match[1], "sha": result[0], "siblings": names, "private": False})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/(\w+)", path):
            _, files = self.server.files(match[1], match[2]) or ("", {})
            self._json(
                [
                    {"type": "file", "oid": "0" * 40, "size": len(content), "path": name}
                    for name, content in files.items()
                ]
            )
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", path):
            result = self.server.files(match[1], match[2])
            if result is None:
                self._missing("RepoNotFound")
            elif match[3] not in result[1]:
                self._missing("EntryNotFound", commit=result[0])
            else:
                self._file(result[0], result[1][match[3]])
        else:
            self._missing("RepoNotFound")

    do_HEAD = do_GET  # noqa: N815  the standard library's name

    def _path(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        return path

    def _missing(self, code: str, commit: str = "") -> None:
        self._json({"error": code}, status=404, **{"X-Error-Code": code, "X-Repo-Commit": commit})

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        self._answer(json.dumps(value).encode(), status, headers)

    def _file(self, commit: str, content: bytes) -> None:
        tag = hashlib.sha256(content).hexdigest()
        self._answer(content, 200, {"ETag": f'"{tag}"', "X-Repo-Commit": commit})

    def _answer(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
