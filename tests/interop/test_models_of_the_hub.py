"""Models by name, from a server that stands in for Hugging Face; the real client talks to it."""

import json
import threading
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from foreign_models import SMALL
from hub_server import Hub, commands_to

from snowmelt.base.errors import SnowmeltError
from snowmelt.interop.hub import fetched


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
    return commands_to(hub, tmp_path)


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
