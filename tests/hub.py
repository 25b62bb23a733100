"""A Hugging Face hub on loopback: folders served as repositories, through the endpoints that `huggingface_hub` uses.

`huggingface_hub` reads its environment when it is imported: code under test runs in a process of its own, with
`hub.environment(tmp_path)`.
"""

import hashlib
import json
import re
import threading
from collections.abc import Collection, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_INFO = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+)(?:/revision/(?P<revision>[^/]+))?")
_TREE = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")
_FILE = re.compile(r"/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Hub:
    """A hub with these repositories; a context manager that starts and stops it.

    Args:
        repositories: folders by `owner/name`. Their files may change while the hub runs.
        token: the token that every request has to carry; None: no token is needed.
        commit: of what the repositories hold.
        branches: commits by branch or tag; `main` alone by default.
        gated: names of repositories whose terms have to be accepted, which no caller has done.

    Attributes:
        downloaded: names of the files whose bytes were sent, in order.
        requests: method and path of every request, in order.
        failure: the status of every response, e.g. 503; None: respond normally.
    """

    def __init__(
        self,
        repositories: Mapping[str, Path],
        token: str | None = None,
        commit: str = COMMIT,
        branches: Mapping[str, str] | None = None,
        gated: Collection[str] = (),
    ) -> None:
        self.repositories = repositories
        self.token = token
        self.commits = {"main": commit, **(branches or {})}
        self.gated = gated
        self.downloaded: list[str] = []
        self.requests: list[str] = []
        self.failure: int | None = None
        hub = self

        class Handler(_Handler):
            def __init__(self, *arguments) -> None:
                self.hub = hub
                super().__init__(*arguments)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        """For `HF_ENDPOINT`."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self, home: Path) -> dict[str, str]:
        """Environment variables of a process that knows only this hub and keeps its cache in `home`."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}

    def commit(self, revision: str) -> str | None:
        """The commit of a branch, tag or commit; None if there is no such revision."""
        return self.commits.get(revision) or (revision if revision in self.commits.values() else None)

    def __enter__(self) -> "Hub":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests, as `hf_raise_for_status` and `get_hf_file_metadata` read answers."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_) -> None:
        """Nothing on standard error."""

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {path}")
        kinds = ((_TREE, self._tree), (_INFO, self._info), (_FILE, self._file))
        for pattern, answer in kinds:
            if found := pattern.fullmatch(path):
                fields = {name: unquote(value) for name, value in found.groupdict("main").items()}
                if self._may_see(fields["name"]):
                    self._answer_at(fields, answer)
                return
        self._refuse(HTTPStatus.NOT_FOUND, "")

    def _may_see(self, name: str) -> bool:
        """Reject, as the hub does, requests for what this caller must not know to exist."""
        sent = self.headers.get("Authorization")
        if self.hub.failure:
            self._refuse(HTTPStatus(self.hub.failure), "")
        elif self.hub.token and sent and sent != f"Bearer {self.hub.token}":
            self._refuse(HTTPStatus.UNAUTHORIZED, "", "Invalid credentials in Authorization header")
        elif self.hub.token and not sent:
            self._refuse(HTTPStatus.UNAUTHORIZED, "RepoNotFound", "Invalid username or password.")
        elif name not in self.hub.repositories:
            # Without a token the real hub answers 401 here, too.
            status = HTTPStatus.NOT_FOUND if sent else HTTPStatus.UNAUTHORIZED
            self._refuse(status, "RepoNotFound", "Repository not found")
        else:
            return True
        return False

    def _answer_at(self, fields: dict[str, str], answer) -> None:
        commit = self.hub.commit(fields["revision"])
        if commit is None:
            self._refuse(HTTPStatus.NOT_FOUND, "RevisionNotFound", f"Invalid rev id: {fields['revision']}")
        else:
            answer(self.hub.repositories[fields["name"]], commit, fields)

    def _info(self, folder: Path, commit: str, fields: dict[str, str]) -> None:
        siblings = [{"rfilename": name} for name in _names(folder)]
        self._send_json({"id": fields["name"], "modelId": fields["name"], "sha": commit, "siblings": siblings})

    def _tree(self, folder: Path, commit: str, fields: dict[str, str]) -> None:  # noqa: ARG002
        self._send_json(
            [
                {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": _etag(folder / name)}
                for name in _names(folder)
            ]
        )

    def _file(self, folder: Path, commit: str, fields: dict[str, str]) -> None:
        if fields["name"] in self.hub.gated:
            self._refuse(HTTPStatus.FORBIDDEN, "GatedRepo", "Access to this model is restricted")
        elif fields["file"] not in _names(folder):
            self._refuse(HTTPStatus.NOT_FOUND, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        else:
            path = folder / fields["file"]
            headers = {"X-Repo-Commit": commit, "ETag": f'"{_etag(path)}"', "Accept-Ranges": "bytes"}
            if self.command == "GET":
                self.hub.downloaded.append(fields["file"])
            self._send_bytes(path.read_bytes(), headers)

    def _send_bytes(self, data: bytes, headers: dict[str, str]) -> None:
        status = HTTPStatus.OK
        if found := _RANGE.fullmatch(self.headers.get("Range", "")):
            first, last = int(found[1]), min(int(found[2] or len(data) - 1), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            status, data = HTTPStatus.PARTIAL_CONTENT, data[first : last + 1]
        self._send(status, data, {"Content-Type": "application/octet-stream", **headers})

    def _send_json(self, content: object) -> None:
        self._send(HTTPStatus.OK, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: HTTPStatus, code: str, message: str = "", headers: dict[str, str] | None = None) -> None:
        named = {"X-Error-Code": code, "X-Error-Message": message}
        content = json.dumps({"error": message}).encode()
        self._send(status, content, {**{name: value for name, value in named.items() if value}, **(headers or {})})

    def _send(self, status: HTTPStatus, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
