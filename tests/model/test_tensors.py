"""Tensors on disk: whole or refused."""

import pickle

import pytest
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.tensors import load_into, load_tensors, save_tensors


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(4, 3, 2, 2, generator=generator)
    return {
        "kernel": kernel.to(memory_format=torch.channels_last),
        "row": kernel[:, 1],
        "half": kernel.bfloat16(),
        "count": torch.tensor(7),
        "flag": torch.tensor([True, False]),
    }


def test_every_bit_comes_back_whatever_the_layout(tmp_path, tensors):
    digest = save_tensors(tmp_path / "t.safetensors", tensors)
    loaded = load_tensors(tmp_path / "t.safetensors", digest)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
        assert loaded[name].is_contiguous()


def test_the_same_tensors_make_the_same_file(tmp_path, tensors):
    reordered = dict(reversed(tensors.items()))
    assert save_tensors(tmp_path / "a", tensors) == save_tensors(tmp_path / "b", reordered)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SnowmeltError, match=r"t\.safetensors is missing"):
        load_tensors(tmp_path / "t.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("hashed", [True, False])
def test_a_truncated_file_is_refused_with_or_without_a_hash(tmp_path, tensors, share, hashed):
    path = tmp_path / "t.safetensors"
    digest = save_tensors(path, tensors)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(SnowmeltError, match=r"damaged|not a whole safetensors file"):
        load_tensors(path, digest if hashed else None)


def test_one_altered_byte_is_told_by_the_hash(tmp_path, tensors):
    path = tmp_path / "t.safetensors"
    digest = save_tensors(path, tensors)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(SnowmeltError, match="SHA-256 differs"):
        load_tensors(path, digest)


def test_a_pickle_under_the_name_is_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(SnowmeltError, match="not a whole safetensors file"):
        load_tensors(path)


def test_loading_into_a_network_keeps_its_layout():
    target = torch.zeros(4, 3, 2, 2).to(memory_format=torch.channels_last)
    wanted = torch.arange(48.0).view(4, 3, 2, 2)
    load_into({"w": target}, {"w": wanted}, "here")
    assert torch.equal(target, wanted)
    assert target.is_contiguous(memory_format=torch.channels_last)


def test_what_does_not_fit_is_listed_and_nothing_is_changed():
    target = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)}
    with pytest.raises(SnowmeltError) as caught:
        load_into(target, {"a": torch.ones(2), "b": torch.ones(4), "d": torch.ones(1)}, "here")
    assert "missing c; unexpected d; b: (4,) instead of (3,)" in str(caught.value)
    assert torch.equal(target["a"], torch.zeros(2))


def test_a_long_list_of_misfits_is_cut():
    with pytest.raises(SnowmeltError, match="and 95 more"):
        load_into({f"w{i}": torch.zeros(1) for i in range(100)}, {}, "here")
