"""What is exported is computed by ONNX Runtime as torch computes it, or is not there."""

import json
import re
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from foreign_models import relative, stirred
from onnx_models import AGE, HO, model, saved

import snowmelt
from snowmelt.base.errors import SnowmeltError
from snowmelt.image.codec import UINT8
from snowmelt.interop.onnx import write
from snowmelt.interop.onnx.half import halve
from snowmelt.interop.onnx.network import PlainNetwork, example_inputs, write_network
from snowmelt.interop.onnx.write import export_onnx
from snowmelt.model.bundle import ImageSpec
from snowmelt.model.networks import LinearUNetConfig, TransformerConfig, UNetConfig, build, prepare
from snowmelt.sampling.plan import plan_sampling

# One of each kind of layer: DDPM's, ADM's resampling blocks with heads, tokens, linear attention.
NETWORKS = {
    "ddpm": UNetConfig(channels=16, multipliers=(1, 2), blocks=1, attention=(1,), num_classes=3),
    "adm": UNetConfig(
        channels=16, multipliers=(1, 2), blocks=1, heads=2, resample="resblock", scale_shift=True, out_channels=6
    ),
    "transformer": TransformerConfig(width=32, depth=2, heads=2, num_classes=3, patch_size=2),
    "lucidrains": LinearUNetConfig(
        time_channels=16, widths=(16, 16, 32), heads=(2, 2), head_channels=(8, 8), full=(1,)
    ),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A model of classes and values with a guide, as a folder, and what export wrote of it; for reading only."""
    place = tmp_path_factory.mktemp("onnx")
    folder = saved(model(conditions=AGE), place / "model")
    plan = plan_sampling(snowmelt.load(folder, device="cpu"))
    found = export_onnx(plan, plan_sampling(plan.model, steps=20), place / "out")
    return folder, place / "out", found


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def forward(network, path, images, batch):
    """(ONNX Runtime's, torch's) output for the same random inputs."""
    inputs = example_inputs(images, batch, torch.Generator().manual_seed(batch))
    with torch.no_grad():
        expected = PlainNetwork(network)(**inputs)
    return torch.from_numpy(session(path).run(None, {k: v.numpy() for k, v in inputs.items()})[0]), expected


@pytest.mark.parametrize(
    "kind", ["ddpm", "transformer", *(pytest.param(each, marks=pytest.mark.slow) for each in ("adm", "lucidrains"))]
)
def test_every_network_is_what_it_was_at_any_batch(kind, tmp_path):
    config = NETWORKS[kind]
    # Odd sizes are padded, and cropped again.
    images = ImageSpec(3, 9, 8, UINT8, tuple("abc") if config.num_classes else None)
    network = prepare(stirred(build(config)), torch.device("cpu"))
    whole, half = tmp_path / "a.onnx", tmp_path / "b.onnx"
    write_network(network, images, whole)
    for batch in (1, 3, 8):
        assert relative(*forward(network, whole, images, batch)) < 1e-5
    halve(whole, half)
    apart = relative(*forward(network, half, images, 3))
    assert 1e-7 < apart < 1e-2  # it is in half precision, and near


def test_inputs_and_outputs_have_names_and_nothing_tells_where_it_was_made(exported):
    _, out, _ = exported
    for name in ("network.onnx", "network.fp16.onnx", "guide.onnx", "guide.fp16.onnx"):
        found = session(out / name)
        assert [(each.name, each.type) for each in found.get_inputs()] == [
            ("x", "tensor(float)"),
            ("c_noise", "tensor(float)"),
            ("label", "tensor(int64)"),
            ("values", "tensor(float)"),
            ("withheld", "tensor(bool)"),
        ]
        assert [(each.name, each.shape[1:], each.type) for each in found.get_outputs()] == [
            ("F", [1, 8, 8], "tensor(float)")
        ]
        assert b"/snowmelt/" not in (out / name).read_bytes()
        assert b".py" not in (out / name).read_bytes()


def test_products_are_in_half_precision_and_the_rest_is_not(exported):
    _, out, _ = exported
    graph = onnx.load(out / "network.fp16.onnx").graph
    half = {each.name for each in graph.initializer if each.data_type == onnx.TensorProto.FLOAT16}
    products = [node for node in graph.node if half & {*node.input}]
    assert {node.op_type for node in products} <= {"Conv", "Gemm", "MatMul"}
    assert len(products) > 10
    large = [each for each in graph.initializer if each.data_type == onnx.TensorProto.FLOAT and len(each.dims) == 4]
    assert large == []


def test_differences_are_told_and_small(exported):
    whole, half = exported[2]
    assert whole.difference.steps == half.difference.steps == 20
    assert max(whole.difference.network, whole.difference.sample) < 1e-4
    assert 1e-5 < half.difference.network < 1e-2
    assert half.bytes < 0.75 * whole.bytes


def run(out, *arguments):
    done = subprocess.run([sys.executable, out / "draw.py", *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, done.stderr


def test_the_script_draws_what_snowmelt_draws(exported, tmp_path):
    folder, out, _ = exported
    expected = snowmelt.sample(snowmelt.load(folder, device="cpu"), 5, seed=3).movedim(1, -1).int()
    for precision, within in (("float32", 1), ("float16", 4)):
        assert run(out, "--count", 5, "--seed", 3, "--precision", precision, "--out", tmp_path / "a.npy") == (0, "")
        found = np.load(tmp_path / "a.npy")
        assert found.dtype == np.uint8
        assert int((torch.from_numpy(found).int() - expected).abs().max()) <= within
    assert run(out, "--count", 3, "--class", "boot", "--class", "none", "--out", tmp_path / "a.png")[0] == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    code, message = run(out, "--class", "boots")
    assert code == 2
    assert "--class boots: choose from boot, sneaker, none of these, none" in message


def test_the_script_needs_no_more_than_it_says(exported):
    text = (exported[1] / "draw.py").read_text()
    modules = set(re.findall(r"^ *(?:import|from) (\w+)", text, re.M))
    assert modules <= {"argparse", "json", "math", "pathlib", "typing", "numpy", "onnxruntime", "PIL"}


def test_the_table_names_the_files(exported):
    _, out, _ = exported
    files = json.loads((out / "table.json").read_text())["files"]
    assert files["float16"]["guide"] == "guide.fp16.onnx"
    assert files["float32"]["bytes"] == sum((out / name).stat().st_size for name in ("network.onnx", "guide.onnx"))


def test_what_computes_something_else_is_not_left_behind(tmp_path, monkeypatch):
    def other(network, images, path):
        with torch.no_grad():
            next(iter(network.parameters())).add_(0.5)
            try:
                write_network(network, images, path)
            finally:
                next(iter(network.parameters())).sub_(0.5)

    monkeypatch.setattr(write, "write_network", other)
    plan = plan_sampling(model(HO, guided=False, classes=None), steps=2)
    with pytest.raises(SnowmeltError, match=r"In float32 ONNX Runtime computes something else than torch"):
        export_onnx(plan, plan, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_half_precision_that_is_too_far_off_is_refused_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setitem(write.LIMITS, "float16", (1e-9, 1e-9))
    plan = plan_sampling(model(HO, guided=False, classes=None), steps=2)
    with pytest.raises(SnowmeltError, match=r"In float16 (.|\n)*--no-float16"):
        export_onnx(plan, plan, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (found,) = export_onnx(plan, plan, tmp_path / "out", float16=False)
    assert found.files == {"network": "network.onnx"}
    assert not (tmp_path / "out" / "network.fp16.onnx").exists()
