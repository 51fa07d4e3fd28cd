"""Activations that are computed again: the same numbers to the bit, in less memory."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from snowmelt import api
from snowmelt.model.networks import TransformerConfig, UNetConfig, build, recompute_activations
from snowmelt.training.config import load_config

UNET = UNetConfig(in_channels=1, out_channels=1, channels=16, multipliers=(1, 2), blocks=2, attention=(1,), dropout=0.2)
CONFIGS = {
    "unet": UNET,
    "transformer": TransformerConfig(in_channels=1, out_channels=1, patch_size=2, width=32, depth=3, heads=2),
}


def trained(config, recompute):
    """(output, gradients, bytes kept for the backward pass) of one step."""
    torch.manual_seed(0)
    network = build(config).train()
    for parameter in network.parameters():  # some begin at zero, and would let nothing through
        torch.nn.init.normal_(parameter, std=0.1)
    if recompute:
        recompute_activations(network)
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x, t = torch.randn(4, 1, 16, 16), torch.randn(4)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = network(x, t)
    out.square().sum().backward()
    return out.detach(), [parameter.grad for parameter in network.parameters()], sum(kept.values())


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_numbers_with_less_kept(name):
    out, gradients, kept = trained(CONFIGS[name], recompute=False)
    again, same, fewer = trained(CONFIGS[name], recompute=True)
    assert torch.equal(out, again)
    assert all(map(torch.equal, gradients, same))
    weights = sum(gradient.nbytes for gradient in gradients)  # kept either way
    assert fewer - weights < 0.5 * (kept - weights)


def test_a_run_is_the_same_run(minimal, shoes, tmp_path, monkeypatch):
    computed_again = []

    def watched(*arguments, **options):
        computed_again.append(True)
        return checkpoint(*arguments, **options)

    monkeypatch.setattr("snowmelt.model.networks.recompute.checkpoint", watched)
    common = {"preset": minimal, "steps": 3, "dropout": 0.3, "lr": 0.01}
    plain = api.train(shoes, out=tmp_path / "plain", **common)
    assert not computed_again
    again = api.train(shoes, out=tmp_path / "again", recompute=True, **common)
    assert computed_again
    assert load_config(again / "config.yaml").recompute
    assert "snowmelt train" in load_config(again / "config.yaml").command
    assert "--recompute" in load_config(again / "config.yaml").command
    for name in ("model.safetensors", "raw.safetensors"):
        assert (plain / "model" / name).read_bytes() == (again / "model" / name).read_bytes()
