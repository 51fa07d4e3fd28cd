import subprocess
import sys

import pytest
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.networks import PRESETS, build, outline, parameter_count

# The published networks: Ho et al.'s at 32x32 and 256x256, OpenAI's with learned variance, NVIDIA's.
# A network that takes classes has one row more than theirs, for "withheld".
PUBLISHED = {
    "ddpm-cifar10": (3, 0, 35_746_307),
    "ddpm-256": (3, 0, 113_673_219),
    "iddpm-cifar10": (6, 0, 52_546_438),
    "adm-64": (6, 1000, 295_904_454 + 768),
    "edm-cifar10": (3, 0, 55_733_891),
}


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items(), ids=PUBLISHED.keys())
def test_published_networks_have_the_published_number_of_parameters(name, published):
    channels_out, num_classes, count = published
    assert parameter_count(outline(PRESETS.get(name)(3, channels_out, num_classes))) == count


def test_frozen_parameters_do_not_count():
    net = torch.nn.Linear(3, 2)
    net.bias.requires_grad_(False)
    assert parameter_count(net) == 6


@pytest.mark.parametrize("entry", list(PRESETS), ids=lambda entry: entry.name)
def test_every_preset_fits_what_it_is_asked_for(entry):
    with torch.device("meta"):
        net = build(entry.value(1, 2, 10))
        out = net(torch.empty(2, 1, 28, 28), torch.empty(2))
    assert out.shape == (2, 2, 28, 28)
    assert net.config.num_classes == 10
    assert entry.summary


@pytest.mark.parametrize("name", ["tiny", "fast"])
def test_presets_for_small_machines_run(name):
    net = build(PRESETS.get(name)(1, 1, 0))
    size = 8 if name == "tiny" else 28
    assert net(torch.randn(2, 1, size, size), torch.rand(2)).shape == (2, 1, size, size)


def test_fast_works_at_half_and_quarter_resolution():
    config = PRESETS.get("fast")(1, 1, 0)
    assert (config.patch_size, config.widths) == (2, (32, 64))


def test_unknown_preset_lists_the_choices():
    with pytest.raises(SnowmeltError, match="ddpm-cifar10"):
        PRESETS.get("ddpm-cifar")


def described(network):
    return {name: (tensor.shape, tensor.dtype) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("name", ["tiny", "fast", "dit-s"])
def test_an_outline_is_the_network_without_its_numbers(name):
    config = PRESETS.get(name)(1, 1, 10)
    drawn = torch.get_rng_state()
    found = outline(config)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(tensor.is_meta for tensor in found.state_dict().values())
    assert described(found) == described(build(config))


LOADS = """
import sys
from snowmelt.model.networks import PRESETS, build, outline
outline(PRESETS.get("fast")(1, 1, 10))
build(PRESETS.get("fast")(1, 1, 10))
sys.exit("torch._dynamo" in sys.modules)
"""


def test_no_compiler_is_imported_to_build_a_network():
    """It takes a second, which every start of `snowmelt sample` would take longer."""
    assert subprocess.run([sys.executable, "-c", LOADS], check=False).returncode == 0
