"""A server that stands in for Hugging Face, on this machine; the real client talks to it."""

import base64
import hashlib
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SHA = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_of_a_test"
WHO = {
    "name": "me",
    "orgs": [{"name": "readers", "roleInOrg": "read"}, {"name": "writers", "roleInOrg": "write"}],
    "auth": {"accessToken": {"role": "write"}},
}


class Hub(ThreadingHTTPServer):
    """Serves a folder as one repository, and takes commits to it from whoever has the token.

    there  whether the repository is there yet
    who    what it answers to whoami
    sent, asked, commits  files that were fetched, requests, and messages and operations of commits
    """

    def __init__(self, folder, repository="some/model", there=True, who=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.repository, self.there, self.who = folder, repository, there, who or WHO
        self.sent, self.asked, self.commits, self.large, self.created = [], [], [], {}, None

    def files(self):
        """Names in the repository, and where they lie."""
        found = sorted(file for file in self.folder.rglob("*") if file.is_file())
        return {str(file.relative_to(self.folder)): file for file in found}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        """Quietly."""

    def answer(self, code, content=b"", **headers):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer_json(self, value, code=200, **headers):
        self.answer(code, json.dumps(value).encode(), Content_Type="application/json", **headers)

    @property
    def known(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_GET(self):
        server, path = self.server, self.path.split("?")[0]
        server.asked.append(f"{self.command} {path}")
        if path == "/api/whoami-v2":
            self.answer_json(server.who if self.known else {"error": "no"}, 200 if self.known else 401)
            return
        files, name = server.files(), server.repository
        if path.startswith(f"/api/models/{name}") and server.there:
            sizes = {name: file.stat().st_size for name, file in files.items()}
            tree = [{"type": "file", "path": n, "size": size, "oid": SHA} for n, size in sizes.items()]
            info = {"id": name, "sha": SHA, "siblings": [{"rfilename": name} for name in files]}
            self.answer_json(tree if "/tree/" in path else info)
            return
        inner = path.removeprefix(f"/{name}/resolve/{SHA}/").removeprefix(f"/{name}/resolve/main/")
        if not path.startswith(f"/{name}/") or inner not in files:
            kind = "EntryNotFound" if path.startswith(f"/{name}/") else "RepoNotFound"
            self.answer(404, b"{}", X_Error_Code=kind)
            return
        content = files[inner].read_bytes()
        if self.command == "GET":
            server.sent.append(inner)
        self.answer(200, content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=SHA)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self):
        server, path = self.server, self.path.split("?")[0]
        server.asked.append(f"{self.command} {path}")
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/validate-yaml":
            self.answer_json({"errors": [], "warnings": []})
            return
        if not self.known:
            self.answer_json({"error": "no"}, 401)
            return
        url = f"http://127.0.0.1:{server.server_port}"
        if path == "/api/repos/create":
            server.created, server.there = json.loads(content), True
            (server.folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
            self.answer_json({"url": f"{url}/{server.repository}"})
        elif "/preupload/" in path:
            modes = [(file["path"], file["path"].endswith(".safetensors")) for file in json.loads(content)["files"]]
            files = [
                {"path": p, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False} for p, large in modes
            ]
            self.answer_json({"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(content)["objects"]
            objects = [{**one, "actions": {"upload": {"href": f"{url}/large/{one['oid']}"}}} for one in wanted]
            self.answer_json({"transfer": "basic", "objects": objects})
        elif "/commit/" in path:
            self.commit([json.loads(line) for line in content.splitlines()])
            self.answer_json(
                {"success": True, "commitOid": SHA, "commitUrl": f"{url}/{server.repository}/commit/{SHA}"}
            )
        else:
            self.answer(404, b"{}")

    def do_PUT(self):
        self.server.asked.append("PUT /large")
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.large[self.path.removeprefix("/large/")] = content
        self.answer(200)

    def commit(self, operations):
        """Write what a commit says into the folder."""
        folder = self.server.folder
        self.server.commits.append(operations)
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "deletedFile":
                (folder / value["path"]).unlink()
            elif operation["key"] in ("file", "lfsFile"):
                small = operation["key"] == "file"
                target = folder / value["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(base64.b64decode(value["content"]) if small else self.server.large[value["oid"]])


def commands_to(hub, folder, **more):
    """The command line in a process of its own, in a folder: the client reads its settings when it is imported."""

    def call(*arguments):
        environment = {
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HOME": str(folder / "cache"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **more,
        }
        line = [sys.executable, "-m", "snowmelt", *map(str, arguments)]
        return subprocess.run(line, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)

    return call
