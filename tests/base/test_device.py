"""What a device can do, and what is chosen for it."""

import pytest
import torch

from snowmelt.base.device import choose_precision, multiplies_bf16
from snowmelt.base.errors import SnowmeltError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, "fp32"),
        ({"avx2": True, "avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": True}, "bf16"),
        ({"neon": True, "bf16": True}, "bf16"),
        ({"avx512_fp16": True}, "fp32"),
    ],
)
def test_a_processor_that_multiplies_in_bf16_is_used_for_it(monkeypatch, capabilities, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision("auto", CPU) == precision
    assert multiplies_bf16(CPU) == (precision == "bf16")
    assert choose_precision("fp32", CPU) == "fp32"
    assert choose_precision("bf16", CPU) == "bf16"


def test_a_release_of_torch_that_does_not_tell_means_fp32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert choose_precision("auto", CPU) == "fp32"


def test_half_precision_is_refused_where_there_is_none():
    with pytest.raises(SnowmeltError, match="--precision fp16 is for NVIDIA GPUs"):
        choose_precision("fp16", CPU)
    with pytest.raises(SnowmeltError, match="'fp8' is not known"):
        choose_precision("fp8", CPU)
