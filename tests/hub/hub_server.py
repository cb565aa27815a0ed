"""A Hub in memory over real HTTP, as much of it as huggingface_hub asks for, and faults on request.

Answers what the client of huggingface_hub 2.4 was seen to send: whoami, create, branch, validate-yaml, preupload (all
files "regular", so that they come inside the commit), commit, model info, tree, resolve with ranges.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Files = dict[str, bytes]
TOKEN = "hf_the_secret_that_nobody_may_print"


@dataclass
class Fault:
    """What goes wrong with requests `METHOD path` that match `pattern`, for the next `times` of them.

    `kind`: an HTTP status; "cut" (half of the body, then the connection is reset); "short" (half of the body, and a
    Content-Length that says so); "wrong" (a byte in the middle is another one).
    """

    pattern: str
    kind: int | str
    times: int = 10**9


@dataclass
class Hub:
    """Repositories by id, revisions by name or commit; `private` ones answer to `TOKEN` only."""

    repos: dict[str, dict[str, Files]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    gone: bool = False

    def __enter__(self) -> Hub:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Answer nobody any more, on open connections neither."""
        self.gone = True
        self.server.shutdown()
        self.server.server_close()

    def put(self, repo: str, files: Files, revision: str = "main") -> str:
        """A commit with exactly `files`; returns its id."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.repos.setdefault(repo, {}).update({revision: dict(files), commit: dict(files)})
        return commit

    def commit_of(self, repo: str, revision: str) -> str:
        """The id behind a revision."""
        return self.put(repo, self.repos[repo][revision], revision)

    def fault(self, request: str) -> int | str | None:
        """The fault that this request meets, counted down."""
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.pattern, request):
                fault.times -= 1
                return fault.kind
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    kind: int | str | None = None

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def answer(self) -> None:
        """One request: note it, meet its fault, find its route."""
        if self.hub.gone:
            self.close_connection = True
            return None
        body, path = (
            self.rfile.read(int(self.headers.get("Content-Length") or 0)),
            unquote(urlsplit(self.path).path),
        )
        self.hub.log.append(f"{self.command} {path} {self.headers.get('Range') or ''}".rstrip())
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.hub.tokens |= {token} - {""}
        self.kind = self.hub.fault(f"{self.command} {path}")
        if isinstance(self.kind, int):
            return self.refuse(self.kind, f"fault {self.kind}")
        for pattern, route in ROUTES:
            if match := re.fullmatch(pattern, path):
                repo = match.groupdict().get("repo")
                if repo in self.hub.private and token != TOKEN:
                    return self.refuse(401, "RepoNotFound")
                return route(self, match, body)
        return self.refuse(404, "no such route")

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def refuse(self, status: int, code: str) -> None:
        """An error as the Hub words it."""
        self.reply({"error": code}, status, {"X-Error-Code": code, "X-Error-Message": code})

    def reply(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Send JSON, or bytes as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = len(data) // 2 if self.kind in ("cut", "short") and self.command == "GET" else len(data)
        if self.kind == "wrong" and data:
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        self.send_response(status)
        length = sent if self.kind == "short" else len(data)
        for name, value in {"Content-Length": str(length), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:sent])
        if self.kind == "cut" and self.command == "GET":
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def files(self, repo: str, revision: str) -> Files | None:
        """The files of a revision; answers 404 itself where there are none."""
        if repo not in self.hub.repos:
            self.refuse(404, "RepoNotFound")
        elif revision not in self.hub.repos[repo]:
            self.refuse(404, "RevisionNotFound")
        else:
            return self.hub.repos[repo][revision]
        return None


def _whoami(call: _Handler, match: re.Match[str], body: bytes) -> None:
    access = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
    call.reply({"type": "user", "id": "1", "name": "owner", "fullname": "owner", "orgs": [], "auth": access})


def _create(call: _Handler, match: re.Match[str], body: bytes) -> None:
    asked = json.loads(body)
    repo = f"{asked.get('organization') or 'owner'}/{asked['name']}"
    known = repo in call.hub.repos
    if not known:
        call.hub.put(repo, {})
        call.hub.private |= {repo} if asked.get("private") or asked.get("visibility") == "private" else set()
    call.reply({"url": f"{call.hub.url}/{repo}", "name": repo, "id": repo}, 409 if known else 200)


def _valid(call: _Handler, match: re.Match[str], body: bytes) -> None:
    call.reply({"errors": [], "warnings": []})


def _branch(call: _Handler, match: re.Match[str], body: bytes) -> None:
    known = call.hub.repos[match["repo"]]
    taken = match["revision"] in known
    known.setdefault(match["revision"], dict(known["main"]))
    call.reply({}, 409 if taken else 200)


def _preupload(call: _Handler, match: re.Match[str], body: bytes) -> None:
    names = [file["path"] for file in json.loads(body)["files"]]
    call.reply(
        {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for n in names]}
    )


def _commit(call: _Handler, match: re.Match[str], body: bytes) -> None:
    repo, revision = match["repo"], match["revision"]
    files = call.files(repo, revision)
    if files is None:
        return
    new = dict(files)
    for line in map(json.loads, body.splitlines()):
        if line["key"] == "file":
            new[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        elif line["key"] == "deletedFile":
            del new[line["value"]["path"]]
    commit = call.hub.put(repo, new, revision)
    url = f"{call.hub.url}/{repo}/commit/{commit}"
    call.reply({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})


def _info(call: _Handler, match: re.Match[str], body: bytes) -> None:
    repo, revision = match["repo"], match["revision"] or "main"
    files = call.files(repo, revision)
    if files is not None:
        names = [{"rfilename": name} for name in files]
        commit = call.hub.commit_of(repo, revision)
        call.reply({"_id": "1", "id": repo, "modelId": repo, "sha": commit, "private": False, "tags": [],
                    "downloads": 0, "likes": 0, "siblings": names})  # fmt: skip


def _tree(call: _Handler, match: re.Match[str], body: bytes) -> None:
    files = call.files(match["repo"], match["revision"])
    if files is not None:
        call.reply([{"type": "file", "path": n, "size": len(b), "oid": _git(b)} for n, b in files.items()])


def _resolve(call: _Handler, match: re.Match[str], body: bytes) -> None:
    repo, revision, name = match["repo"], match["revision"], match["name"]
    files = call.files(repo, revision)
    if files is None:
        return
    headers = {"X-Repo-Commit": call.hub.commit_of(repo, revision), "Accept-Ranges": "bytes"}
    if name not in files:
        return call.reply({"error": "no entry"}, 404, {**headers, "X-Error-Code": "EntryNotFound"})
    data, status = files[name], 200
    headers["ETag"] = f'"{_git(data)}"'
    if wanted := re.fullmatch(r"bytes=(\d+)-", call.headers.get("Range") or ""):
        start = int(wanted[1])
        headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        data, status = data[start:], 206
    call.reply(data, status, headers)


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


REPO = r"(?P<repo>[^/]+/[^/]+)"
ROUTES: tuple[tuple[str, Callable[[_Handler, re.Match[str], bytes], None]], ...] = (
    (r"/api/whoami-v2", _whoami),
    (r"/api/repos/create", _create),
    (r"/api/validate-yaml", _valid),
    (rf"/api/models/{REPO}/branch/(?P<revision>.+)", _branch),
    (rf"/api/models/{REPO}/preupload/(?P<revision>.+)", _preupload),
    (rf"/api/models/{REPO}/commit/(?P<revision>.+)", _commit),
    (rf"/api/models/{REPO}/tree/(?P<revision>[^/]+)", _tree),
    (rf"/api/models/{REPO}(?:/revision/(?P<revision>[^/]+))?", _info),
    (rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", _resolve),
)
