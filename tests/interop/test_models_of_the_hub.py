"""Models by name, from a server that stands in for Hugging Face; the real client talks to it."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from foreign_models import SMALL

from snowmelt.base.errors import SnowmeltError
from snowmelt.interop.hub import fetched

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves a folder as the repository some/model."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.sent = folder, []


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

    def do_GET(self):
        folder = self.server.folder
        path = self.path.split("?")[0]
        if path.startswith("/api/models/some/model"):
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            names = [str(file.relative_to(folder)) for file in files]
            info = {"id": "some/model", "sha": SHA, "siblings": [{"rfilename": name} for name in names]}
            sizes = [file.stat().st_size for file in files]
            tree = [{"type": "file", "path": n, "size": size, "oid": SHA} for n, size in zip(names, sizes, strict=True)]
            content = json.dumps(tree if "/tree/" in path else info).encode()
            self.answer(200, content, Content_Type="application/json")
            return
        start = f"/some/model/resolve/{SHA}/"
        name = path.removeprefix(start).removeprefix("/some/model/resolve/main/")
        if not path.startswith("/some/model/") or not (folder / name).is_file():
            kind = "EntryNotFound" if path.startswith("/some/model/") else "RepoNotFound"
            self.answer(404, b"{}", X_Error_Code=kind)
            return
        content = (folder / name).read_bytes()
        if self.command == "GET":
            self.server.sent.append(name)
        self.answer(200, content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=SHA)

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def hub(tmp_path):
    folder = tmp_path / "remote"
    torch.manual_seed(0)
    DDPMPipeline(UNet2DModel(**SMALL), DDPMScheduler()).save_pretrained(folder)
    (folder / "run_me.py").write_text("raise SystemExit(3)")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"not wanted")
    torch.save({"weight": torch.zeros(2)}, folder / "single.pt")
    server = Hub(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def command(hub, tmp_path):
    """The command line in a process of its own: the client reads its settings when it is imported."""

    def call(*arguments):
        environment = {
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HOME": str(tmp_path / "cache"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        line = [sys.executable, "-m", "snowmelt", *map(str, arguments)]
        return subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    return call


def test_a_name_is_fetched_and_drawn_from_and_nothing_else_is_fetched(command, hub, tmp_path):
    done = command("sample", "hf:some/model", "-n", 1, "--steps", 2)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "samples" / "model" / "000000.png").is_file()
    assert sorted(hub.sent) == [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    before = len(hub.sent)
    assert command("convert", "hf:some/model", tmp_path / "ours").returncode == 0
    assert len(hub.sent) == before  # from the cache
    origin = json.loads((tmp_path / "ours" / "config.json").read_text())["training"]
    assert origin["source"] == "hf:some/model"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf:some/model/single.pt", "is of no format that is known"),
        ("hf:some/model/none.pt", "no such file in it"),
        ("hf:other/model", "hf auth login"),
    ],
)
def test_what_cannot_be_had_is_said(name, expected, command, tmp_path):
    done = command("convert", name, tmp_path / "ours")
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert not (tmp_path / "ours").exists()


def test_a_hub_that_cannot_be_reached_is_said(command, hub):
    hub.shutdown()
    hub.server_close()
    done = command("sample", "hf:some/model", "-n", 1)
    assert done.returncode == 2, done.stderr
    assert "Hugging Face cannot be reached" in done.stderr


def test_a_path_is_left_alone_and_a_bad_name_refused(tmp_path):
    assert fetched(tmp_path) == tmp_path
    for name in ("hf:", "hf:model", "hf:a/b/../../c", "hf:a b/c"):
        with pytest.raises(SnowmeltError, match="is no name of a model"):
            fetched(Path(name))
