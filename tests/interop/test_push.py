"""`snowmelt push`, to a server that stands in for Hugging Face: rights first, then one commit."""

import json
import threading
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, WHO, Hub, commands_to

from snowmelt.image.codec import UINT8
from snowmelt.interop.push import why_not
from snowmelt.model.bundle import ImageSpec, ModelConfig, SamplerDefaults, save_model
from snowmelt.model.networks import UNetConfig, build

READ = {"auth": {"accessToken": {"role": "read"}}}


@pytest.fixture
def hub(tmp_path):
    folder = tmp_path / "remote"
    folder.mkdir()
    server = Hub(folder, "me/shoes", there=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def command(hub, tmp_path):
    return commands_to(hub, tmp_path, HF_TOKEN=TOKEN)


@pytest.fixture
def plain_model(tmp_path):
    """A model that diffusers can express."""
    network = UNetConfig(channels=8, multipliers=(1, 2), blocks=1, max_groups=4, min_group_channels=1)
    denoiser = {
        "schedule": {"name": "linear", "steps": 100, "zero_snr": False, "options": {}},
        "prediction": "eps",
        "clock": "index",
        "learned_variance": False,
    }
    config = ModelConfig(network, denoiser, ImageSpec(3, 8, 8, UINT8), SamplerDefaults("ddpm", 100))
    torch.manual_seed(0)
    folder = tmp_path / "plain"
    folder.mkdir()
    save_model(folder, config, {"ema": build(network).state_dict()}, {"data": "shoes"})
    return folder


def test_a_run_is_pushed_in_one_commit_and_drawn_from_by_name(command, hub, finished_run, tmp_path):
    judged = command("eval", finished_run, "-n", 8, "--steps", 1, "--metrics", "kid")
    assert judged.returncode == 0, judged.stderr
    done = command("push", finished_run, "me/shoes")
    assert done.returncode == 0, done.stderr
    assert "Note: This model cannot be said in diffusers' words: it predicts 'edm'" in done.stdout
    assert "Written: hf:me/shoes, as a model folder of snowmelt" in done.stdout
    assert "Next: snowmelt sample hf:me/shoes -n 16" in done.stdout
    assert hub.asked[0] == "GET /api/whoami-v2"  # before anything is read or sent
    assert (hub.created["name"], hub.created["organization"]) == ("shoes", "me")
    assert "visibility" not in hub.created  # the hub's default
    assert len(hub.commits) == 1
    model = finished_run / "model"
    for file in model.glob("*.safetensors"):
        assert (hub.folder / file.name).read_bytes() == file.read_bytes()
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (model, hub.folder))
    assert theirs["training"].pop("data") == Path(ours["training"].pop("data")).name  # not where it lay
    assert theirs == ours
    assert not any(str(finished_run.parent) in file.read_text() for file in hub.folder.glob("*.[mj][ds]*"))
    assert set(hub.files()) - {file.name for file in model.iterdir()} == {".gitattributes", "README.md", "grid.png"}
    card = (hub.folder / "README.md").read_text()
    assert "library_name: snowmelt" in card
    assert "![Samples](grid.png)" in card
    assert "beside 20 training images of shoes" in card
    assert "snowmelt sample hf:me/shoes -n 16" in card
    draw = ("-n", 2, "--steps", 2, "--format", "npy", "--out")
    assert command("sample", "hf:me/shoes", *draw, "theirs").returncode == 0
    assert command("sample", finished_run, *draw, "ours").returncode == 0
    assert (tmp_path / "theirs" / "samples.npy").read_bytes() == (tmp_path / "ours" / "samples.npy").read_bytes()


def test_what_diffusers_can_express_is_pushed_as_a_pipeline(command, hub, plain_model, tmp_path):
    done = command("push", plain_model, "hf:me/shoes", "--private")
    assert done.returncode == 0, done.stderr
    assert "as a pipeline of diffusers" in done.stdout
    assert hub.created["visibility"] == "private"
    assert {"model_index.json", "unet/diffusion_pytorch_model.safetensors", "README.md"} <= set(hub.files())
    assert 'from_pretrained("me/shoes")' in (hub.folder / "README.md").read_text()
    drawn = command("sample", "hf:me/shoes", "-n", 1, "--steps", 2)
    assert drawn.returncode == 0, drawn.stderr

    # Once there, it is not written over unless that is said; then nothing of the old form is left.
    refused = command("push", plain_model, "me/shoes", "--format", "snowmelt")
    assert refused.returncode == 2
    assert "me/shoes holds 6 files already" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert len(hub.commits) == 1
    assert "--private would do nothing" in command("push", plain_model, "me/shoes", "--private", "--overwrite").stderr
    done = command("push", plain_model, "me/shoes", "--format", "snowmelt", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert set(hub.files()) == {".gitattributes", "README.md", "config.json", "model.safetensors"}
    assert len(hub.commits) == 2


def test_without_rights_nothing_is_read_or_sent(hub, plain_model, tmp_path):
    nobody, wrong = commands_to(hub, tmp_path, HF_TOKEN=""), commands_to(hub, tmp_path, HF_TOKEN="hf_wrong")
    me = commands_to(hub, tmp_path, HF_TOKEN=TOKEN)
    for command, name, expected in (
        (nobody, "me/shoes", "nobody is logged in"),
        (wrong, "me/shoes", "does not know the token"),
        (me, "you/shoes", "logged in as me, who is no member of you"),
        (me, "readers/shoes", "me may only read in readers"),
    ):
        done = command("push", tmp_path / "nothing", name)  # that there is no such model is found later
        assert done.returncode == 2, done.stdout
        assert expected in done.stderr
        assert "hf auth login" in done.stderr
    hub.who = {**WHO, **READ}
    assert "the token may only read" in me("push", plain_model, "me/shoes").stderr
    assert hub.created is None
    assert not any("POST" in asked for asked in hub.asked)


def test_what_cannot_be_pushed_is_said(command, hub, finished_run, tmp_path):
    step = next((finished_run / "checkpoints").iterdir())
    torch.save({"weight": torch.zeros(1)}, tmp_path / "theirs.pt")
    for source, name, *more, expected in (
        (finished_run, "shoes", "is no name of a repository"),
        (finished_run, "me/shoes/model.pt", "is no name of a repository"),
        (tmp_path / "nothing", "me/shoes", "does not exist"),
        (tmp_path / "theirs.pt", "me/shoes", "snowmelt convert"),
        (step, "me/shoes", "is a checkpoint"),
        (finished_run, "me/shoes", "--format", "diffusers", "--format snowmelt"),
    ):
        done = command("push", source, name, *more)
        assert done.returncode == 2, done.stdout
        assert expected in done.stderr
    assert hub.created is None


def test_rights_of_fine_grained_tokens():
    def who(*scoped, everywhere=()):
        token = {"role": "fineGrained", "fineGrained": {"global": list(everywhere), "scoped": list(scoped)}}
        return {**WHO, "auth": {"accessToken": token}}

    def scope(name, *permissions):
        return {"entity": {"type": "user", "name": name}, "permissions": list(permissions)}

    assert why_not(who(scope("me", "repo.content.read", "repo.write")), "me/shoes") is None
    assert why_not(who(scope("Me/shoes", "repo.write")), "me/shoes") is None
    assert "not allowed to write in me" in why_not(who(scope("me", "repo.content.read")), "me/shoes")
    assert "not allowed to write in writers" in why_not(who(scope("me", "repo.write")), "writers/shoes")
    assert "not allowed" in why_not(who(), "me/shoes")
    assert why_not(WHO, "writers/shoes") is None
    assert why_not({"name": "me"}, "ME/shoes") is None  # what it does not say the hub decides


def test_a_card_is_valid_yaml_at_its_head(command, hub, plain_model):
    import yaml

    assert command("push", plain_model, "me/shoes").returncode == 0
    head = (hub.folder / "README.md").read_text().split("---")[1]
    assert yaml.safe_load(head)["tags"] == ["snowmelt"]
    assert json.loads((hub.folder / "snowmelt.json").read_text())["training"]["data"] == "shoes"
