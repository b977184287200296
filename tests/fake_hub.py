"""A small Hub on loopback, for the real `huggingface_hub` client to talk to.

Two servers, as the real one has two hosts: the hub itself, and the store that large files are
redirected to. Repositories are folders; ids of commits and of files are what git and LFS would say,
so that the same folders always give the same ids. Every request is recorded, and faults can be
planted. No xet: set HF_HUB_DISABLE_XET=1 for uploads.

    python tests/fake_hub.py FOLDER      serves FOLDER/{models,datasets}/<namespace>/<name>

With a number after it, as slowly as a line of so many megabytes a second.
"""

import base64
import contextlib
import hashlib
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

LARGE = (".safetensors", ".parquet", ".bin", ".h5")
NAMED = re.compile(r"/api/(models|datasets)/(.+?)/(revision|tree|preupload|commit)/([^/]+)(?:/.*)?")
INFO = re.compile(r"/api/(models|datasets)/([^/]+(?:/[^/]+)?)")
RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+|[^/]+)/resolve/([^/]+)/(.+)")
BATCH = re.compile(r"/(datasets/)?(.+)\.git/info/lfs/objects/batch")
BLOCK = 1 << 20


@dataclass
class Content:
    """A file: its bytes, or where they are; and what git calls it."""

    data: bytes | Path

    def __post_init__(self) -> None:
        self.size = len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size
        self.git, self.sha256 = hashlib.sha1(b"blob %d\0" % self.size), hashlib.sha256()
        for block in self.blocks():
            self.git.update(block)
            self.sha256.update(block)
        self.git, self.sha256 = self.git.hexdigest(), self.sha256.hexdigest()

    def blocks(self, start: int = 0, end: int | None = None):
        end = self.size if end is None else end
        if isinstance(self.data, bytes):
            yield self.data[start:end]
            return
        with self.data.open("rb") as file:
            file.seek(start)
            while start < end and (block := file.read(min(BLOCK, end - start))):
                start += len(block)
                yield block


@dataclass
class Repo:
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, Content]] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    messages: list[str] = field(default_factory=list)


@dataclass
class Request:
    """What a client asked. `host` is "hub" or "store"; names of headers are in small letters."""

    method: str
    path: str
    headers: Mapping[str, str]
    host: str


@dataclass
class Fault:
    """What goes wrong with requests whose method and path match, `times` times.

    Attributes:
        status: answer with this instead, and with `headers`.
        cut: end the connection after so many bytes of the body.
        flip: change the byte at this place of the body.
        drop: headers that are left out.
        slow: seconds to wait before answering.
    """

    path: str
    method: str = ""
    times: int = 1 << 30
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    flip: int | None = None
    drop: tuple[str, ...] = ()
    slow: float = 0.0


class FakeHub:
    """Both servers. `hub.url` is what HF_ENDPOINT should be."""

    def __init__(self, page_size: int = 1000) -> None:
        self.page_size = page_size
        self.rate = 0.0  # bytes a second; 0: as fast as it goes
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, Content] = {}  # what the store has, by sha256
        self.requests: list[Request] = []
        self.connections: list[socket.socket] = []
        self.faults: list[Fault] = []
        self.tokens = {"hf_good": "tester"}
        self.lock = threading.Lock()
        self._servers = [self._serve("hub"), self._serve("store")]
        self.url, self.store = (f"http://127.0.0.1:{s.server_port}" for s in self._servers)

    def _serve(self, host: str) -> ThreadingHTTPServer:
        handler = type("Handler", (Handler,), {"hub": self, "host": host})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server

    def close(self) -> None:
        """Be down: for connections that are open, too."""
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def add(
        self,
        repo_id: str,
        files: Path | Mapping[str, bytes | str],
        kind: str = "model",
        revision: str = "main",
        **settings: Any,
    ) -> str:
        """Commit a folder, or {path: content}, to a branch of a repository; the commit's id."""
        if isinstance(files, Path):
            found = {p.relative_to(files).as_posix(): p for p in files.rglob("*") if p.is_file()}
        else:
            found = {n: c.encode() if isinstance(c, str) else c for n, c in files.items()}
        repo = self.repos.setdefault((kind, repo_id), Repo())
        for name, value in settings.items():
            setattr(repo, name, value)
        return self.commit(repo, revision, {name: Content(data) for name, data in found.items()})

    def commit(self, repo: Repo, revision: str, contents: dict[str, Content]) -> str:
        said = json.dumps(sorted((name, c.git) for name, c in contents.items()))
        sha = hashlib.sha1(said.encode()).hexdigest()
        repo.refs[revision], repo.commits[sha] = sha, contents
        for content in contents.values():
            self.objects[content.sha256] = content
        return sha

    def paths(self, host: str = "") -> list[str]:
        """ "GET /path" of every request so far."""
        return [f"{r.method} {r.path}" for r in self.requests if host in ("", r.host)]


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    host: str
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        self.hub.connections.append(self.connection)

    def do_GET(self) -> None:
        self.answer(self.get_from_hub if self.host == "hub" else self.get_from_store)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.answer(self.post)

    def do_PUT(self) -> None:
        self.answer(self.put)

    # -- answering --------------------------------------------------------------------------------

    def answer(self, work: Callable[[], None]) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.fault = None
        with self.hub.lock:
            headers = {name.lower(): value for name, value in self.headers.items()}
            said = Request(self.command, self.path, headers, self.host)
            self.hub.requests.append(said)
            for fault in self.hub.faults:
                matches = fault.method in ("", self.command) and re.search(fault.path, self.path)
                if matches and fault.times > 0:
                    fault.times -= 1
                    self.fault = fault
                    break
        if self.fault and self.fault.slow:
            time.sleep(self.fault.slow)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self.fault and self.fault.status:
                self.send(self.fault.status, b"{}", self.fault.headers)
            elif self.host == "hub" and self.headers.get("Authorization") and not self.user():
                self.refuse(401, "", message="Invalid credentials in Authorization header")
            else:
                work()

    def send(
        self, status: int, body: bytes | Content = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        fault, said = self.fault or Fault(""), dict(headers or {})
        content = Content(body) if isinstance(body, bytes) else body
        start, end = 0, content.size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if status == 200 and asked and not isinstance(body, bytes):
            start, status = int(asked[1]), 206
            end = int(asked[2]) + 1 if asked[2] else end
            said["Content-Range"] = f"bytes {start}-{end - 1}/{content.size}"
        said.setdefault("Content-Length", str(end - start))
        self.send_response(status)
        for name, value in said.items():
            if name.lower() not in fault.drop:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        sent, started = 0, time.perf_counter()
        for block in content.blocks(start, end):
            if fault.flip is not None and sent <= fault.flip < sent + len(block):
                changed = bytearray(block)
                changed[fault.flip - sent] ^= 1
                block = bytes(changed)
            if fault.cut is not None and sent + len(block) > fault.cut:
                self.wfile.write(block[: fault.cut - sent])
                self.close_connection = True
                return
            if self.hub.rate:
                time.sleep(max(0, started + sent / self.hub.rate - time.perf_counter()))
            self.wfile.write(block)
            sent += len(block)

    def send_json(self, said: Any, headers: Mapping[str, str] | None = None) -> None:
        self.send(
            200, json.dumps(said).encode(), {"Content-Type": "application/json", **(headers or {})}
        )

    def refuse(
        self, status: int, code: str, headers: Mapping[str, str] | None = None, message: str = ""
    ) -> None:
        said = {"X-Error-Code": code, "X-Error-Message": message or code}
        self.send(status, b"{}", {**said, **(headers or {})})

    # -- who, what --------------------------------------------------------------------------------

    def user(self) -> str | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        return self.hub.tokens.get(token)

    def repo(self, kind: str, repo_id: str) -> Repo | None:
        """The repository, if this client may see it; otherwise the refusal is sent."""
        repo = self.hub.repos.get((kind, unquote(repo_id)))
        if repo is None or (repo.private and not self.user()):
            self.refuse(404 if self.user() else 401, "RepoNotFound")
        elif repo.gated:
            self.refuse(403 if self.user() else 401, "GatedRepo")
        else:
            return repo
        return None

    def get_from_hub(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if url.path == "/api/whoami-v2":
            if self.user() is None:
                self.refuse(401, "Unauthorized")
            else:
                self.send_json({"type": "user", "name": self.user(), "orgs": [], "auth": {}})
        elif match := RESOLVE.fullmatch(url.path):
            self.resolve("dataset" if match[1] else "model", match[2], unquote(match[3]), match[4])
        elif (match := NAMED.fullmatch(url.path)) and match[3] in ("revision", "tree"):
            self.describe(match[1][:-1], match[2], unquote(match[4]), match[3] == "tree", query)
        elif match := INFO.fullmatch(url.path):
            self.describe(match[1][:-1], match[2], "main", False, query)
        else:
            self.refuse(404, "NotFound")

    def look_up(self, kind: str, repo_id: str, revision: str) -> tuple[Any, str]:
        """A repository and what a revision of it is; (None, "") once the request was refused."""
        repo = self.repo(kind, repo_id)
        if repo is None:
            return None, ""
        sha = repo.refs.get(revision, revision)
        if sha not in repo.commits:
            self.refuse(404, "RevisionNotFound")
            return None, ""
        return repo, sha

    def describe(self, kind: str, repo_id: str, revision: str, tree: bool, query: Any) -> None:
        repo, sha = self.look_up(kind, repo_id, revision)
        if repo is None:
            return
        if not tree:
            said = {"id": unquote(repo_id), "sha": sha, "private": repo.private, "gated": False}
            names = [{"rfilename": name} for name in repo.commits[sha]]
            self.send_json({**said, "siblings": names})
        else:
            first = int(query.get("cursor", ["0"])[0])
            entries = [entry(n, c) for n, c in sorted(repo.commits[sha].items())]
            page, headers = entries[first : first + self.hub.page_size], {}
            if first + self.hub.page_size < len(entries):
                here = f"{self.hub.url}{urlsplit(self.path).path}"
                following = f"{here}?recursive=true&cursor={first + self.hub.page_size}"
                headers["Link"] = f'<{following}>; rel="next"'
            self.send_json(page, headers)

    def resolve(self, kind: str, repo_id: str, revision: str, path: str) -> None:
        repo, sha = self.look_up(kind, repo_id, revision)
        if repo is None:
            return
        content = repo.commits[sha].get(unquote(path))
        if content is None:
            self.refuse(404, "EntryNotFound", {"X-Repo-Commit": sha})
            return
        headers = {"X-Repo-Commit": sha, "ETag": f'"{content.git}"', "Accept-Ranges": "bytes"}
        if not path.endswith(LARGE):
            self.send(200, content, headers)
            return
        headers |= {"X-Linked-Etag": f'"{content.sha256}"', "X-Linked-Size": str(content.size)}
        self.send(302, b"", {**headers, "Location": f"{self.hub.store}/files/{content.sha256}"})

    def get_from_store(self) -> None:
        content = self.hub.objects.get(self.path.removeprefix("/files/"))
        if content is None:
            self.send(404)
        else:
            self.send(200, content, {"Accept-Ranges": "bytes", "ETag": f'"{content.sha256}"'})

    # -- uploads ----------------------------------------------------------------------------------

    def put(self) -> None:
        content = Content(self.body)
        if self.path != f"/upload/{content.sha256}":
            self.send(400)
            return
        self.hub.objects[content.sha256] = content
        self.send(200)

    def post(self) -> None:
        path = urlsplit(self.path).path
        said = {} if path.find("/commit/") > 0 else json.loads(self.body or b"{}")
        if path == "/api/validate-yaml":
            self.send_json({"errors": [], "warnings": []})
        elif self.user() is None:
            self.refuse(401, "Unauthorized")
        elif path == "/api/repos/create":
            name = f"{said.get('organization') or self.user()}/{said['name']}"
            kind, known = said.get("type") or "model", self.hub.repos
            private = bool(said.get("private") or said.get("visibility") == "private")
            answer = {"url": f"{self.hub.url}/{name}", "name": name}
            if (kind, name) in known:
                self.send(409, json.dumps(answer).encode())
                return
            known[kind, name] = repo = Repo(private=private)
            self.hub.commit(repo, "main", {})
            self.send_json(answer)
        elif match := BATCH.fullmatch(path):
            self.send_json(
                {"transfer": "basic", "objects": list(map(self.wanted, said["objects"]))}
            )
        elif path == "/verify":
            self.send(200 if said["oid"] in self.hub.objects else 404)
        elif match := NAMED.fullmatch(path):
            kind, repo_id, what, revision = match[1][:-1], match[2], match[3], unquote(match[4])
            repo = self.repo(kind, repo_id)
            if repo is not None and what == "preupload":
                modes = [upload_mode(one["path"]) for one in said["files"]]
                self.send_json({"files": modes})
            elif repo is not None:
                self.receive(repo, revision)
        else:
            self.refuse(404, "NotFound")

    def wanted(self, said: Mapping[str, Any]) -> dict[str, Any]:
        answer = {"oid": said["oid"], "size": said["size"]}
        if said["oid"] not in self.hub.objects:
            upload = {"href": f"{self.hub.store}/upload/{said['oid']}"}
            verify = {"href": f"{self.hub.url}/verify"}
            answer["actions"] = {"upload": upload, "verify": verify}
        return answer

    def receive(self, repo: Repo, revision: str) -> None:
        contents = dict(repo.commits[repo.refs[revision]])
        for line in self.body.decode().splitlines():
            said = json.loads(line)
            value = said["value"]
            if said["key"] == "header":
                repo.messages.append(value["summary"])
            elif said["key"] == "file":
                contents[value["path"]] = Content(base64.b64decode(value["content"]))
            elif said["key"] == "lfsFile":
                contents[value["path"]] = self.hub.objects[value["oid"]]
            elif said["key"] == "deletedFile":
                contents.pop(value["path"], None)
        sha = self.hub.commit(repo, revision, contents)
        url = f"{self.hub.url}{quote(self.path.split('/commit/')[0][len('/api/models') :])}"
        self.send_json({"success": True, "commitOid": sha, "commitUrl": f"{url}/commit/{sha}"})


def entry(name: str, content: Content) -> dict[str, Any]:
    """A file as the listing of a tree has it."""
    said = {"type": "file", "path": name, "size": content.size, "oid": content.git}
    if name.endswith(LARGE):
        said["lfs"] = {"oid": content.sha256, "size": content.size, "pointerSize": 134}
    return said


def upload_mode(path: str) -> dict[str, Any]:
    mode = "lfs" if path.endswith(LARGE) else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}


def main(folder: Path, megabytes: float = 0) -> None:
    hub = FakeHub()
    hub.rate = megabytes * 1e6
    for kind in ("model", "dataset"):
        for repo in sorted(p for p in (folder / f"{kind}s").glob("*/*") if p.is_dir()):
            name = repo.relative_to(folder / f"{kind}s").as_posix()
            print(f"{kind} {name} {hub.add(name, repo, kind)}")
    print(f"export HF_ENDPOINT={hub.url} HF_HUB_DISABLE_XET=1 HF_HUB_DISABLE_TELEMETRY=1")
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    hub.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
