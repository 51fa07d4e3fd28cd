"""`snowmelt export`."""

import json
import logging

import pytest

from snowmelt.base import extras
from snowmelt.interop.onnx.web import RUNTIME


@pytest.fixture
def runtime(tmp_path):
    """What npm would have put there."""
    folder = tmp_path / "node_modules" / "onnxruntime-web" / "dist"
    folder.mkdir(parents=True)
    for name in (*RUNTIME, "ort.all.js"):
        (folder / name).write_text(name)
    return tmp_path


def test_a_run_becomes_a_folder_that_holds_everything(snowmelt, finished_run, tmp_path, runtime, caplog):
    out = tmp_path / "out"
    answer = snowmelt("export", finished_run, "--onnx", out, "--steps", 3, "--guidance", 2, "--web", runtime)
    assert answer.code == 0, answer
    assert "network.onnx: " in answer.out
    assert "in samples of 20 steps" in answer.out
    assert f"Next: python {out / 'draw.py'} --out images.png" in answer.out
    assert "npm install" not in answer.out
    assert answer.err == ""
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []  # the exporter's own affairs
    table = json.loads((out / "table.json").read_text())
    assert (table["class_names"], table["guidance"], len(table["rows"])) == (["Boot", "Sneaker"], 2.0, 3)
    assert {path.name for path in (out / "ort").iterdir()} == {*RUNTIME}
    assert {"network.onnx", "network.fp16.onnx", "draw.py", "index.html", "worker.js"} <= {
        p.name for p in out.iterdir()
    }


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(refusal, finished_run, tmp_path, monkeypatch):
    out = tmp_path / "out"
    for expected, *arguments in (
        ("already exists", finished_run, "--onnx", tmp_path),
        ("does not exist", tmp_path / "nothing", "--onnx", out),
        ("npm install onnxruntime-web", finished_run, "--onnx", out, "--web", tmp_path),
        ("Did you mean 'dpmpp-2m'", finished_run, "--onnx", out, "--sampler", "dpmpp2m"),
        ("'ema', 'raw'", finished_run, "--onnx", out, "--weights", "emma"),
    ):
        assert expected in refusal("export", *arguments).replace('"', "'")
        assert not out.exists()

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(extras, "import_module", missing)
    assert "pip install 'snowmelt[onnx]'" in refusal("export", finished_run, "--onnx", out)
    assert list(tmp_path.iterdir()) == []
