"""Runs whose network is compiled first."""

import pytest
import torch

from snowmelt import api
from snowmelt.base.errors import SnowmeltError
from snowmelt.model.tensors import load_tensors


@pytest.mark.slow
def test_a_compiled_run_learns_the_same(shoes, minimal, tmp_path):
    common = {"preset": minimal, "steps": 3, "precision": "fp32", "device": "cpu"}
    plain = api.train(shoes, out=tmp_path / "plain", **common)
    compiled = api.train(shoes, out=tmp_path / "compiled", compile=True, **common)
    expected, found = (load_tensors(run / "model" / "raw.safetensors") for run in (plain, compiled))
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-4)


def test_where_nothing_compiles_the_flag_is_named(shoes, minimal, tmp_path, monkeypatch):
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "/nowhere/g++"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(SnowmeltError, match=r"--compile: .*compiler.*\n.*Leave --compile out"):
        api.train(shoes, out=tmp_path / "run", preset=minimal, steps=1, compile=True, device="cpu")
