"""The exported page in a real browser: its noise and its loop are the script's, and it can be used by keyboard."""

import http.server
import json
import threading
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
from onnx_models import AGE, CLASSED, HO, model

from browser import CHROMIUM, Browser
from snowmelt.interop.onnx import draw
from snowmelt.interop.onnx.table import sampler_table
from snowmelt.interop.onnx.web import copy_page
from snowmelt.sampling.plan import plan_sampling

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
SEEDS = [7, 8, 9]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A static web server that says nothing."""

    def log_message(self, *_):
        pass


@contextmanager
def served(folder):
    """The address of a folder."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def opened(folder, profile):
    with served(folder) as address, Browser(profile, address) as browser:
        browser.address = address
        yield browser


# A network that needs no runtime: F = x/2 + c_noise/10 + the label/10 + f where the variance is learned.
STAND_IN = """async (name, x, cNoise, told) => {
  const size = x.length / cNoise.length, parts = TWICE ? 2 : 1;
  const F = new Float32Array(parts * x.length);
  x.forEach((value, i) => {
    const image = Math.floor(i / size), place = parts * image * size + i % size;
    const label = Number(told.label.data[image]);
    F[place] = value / 2 + (cNoise[image] + label) / 10 + (name === "guide" ? 0.1 : 0);
    if (TWICE) F[place + size] = Math.tanh(value);
  });
  return F;
}"""
DRAW = """(async () => {
  const { noise } = await import("./noise.js"), { sample } = await import("./sampler.js");
  const table = TABLE, seeds = SEEDS, run = NETWORK;
  const one = (seed, row, scale) => [...noise(seed, row, 64)].map((z) => z * scale);
  const drawn = (row, scale) => Float32Array.from(seeds.flatMap((seed) => one(seed, row, scale)));
  const label = BigInt64Array.from(seeds, (seed) => BigInt(seed % 3));
  const told = { label: { type: "int64", data: label, dims: [seeds.length] } };
  const x = drawn(0, table.start);
  return [...await sample(table, seeds.length, x, (k) => drawn(k + 1, 1), told, run, () => null)];
})()"""


class StandIn:
    """The same in Python."""

    def __init__(self, learned, shift=0.0):
        self.learned, self.shift = learned, shift

    def run(self, _, inputs):
        x = inputs["x"]
        label = inputs.get("label", np.zeros(len(x)))
        F = x / 2 + ((inputs["c_noise"] + label) / 10 + self.shift)[:, None, None, None].astype(np.float32)
        return [np.concatenate([F, np.tanh(x)], axis=1) if self.learned else F]


@pytest.mark.parametrize(
    ("made", "asked"),
    [
        ({}, {"steps": 5}),
        ({"process": CLASSED}, {"steps": 5}),
        ({}, {"steps": 5, "guidance": 2.0, "clip": "dynamic"}),
        (
            {"process": HO, "guided": False, "learned": True},
            {"steps": 5, "options": {"variance": "learned"}, "clip": "none"},  # clamped, all would end at -1 or 1
        ),
    ],
    ids=["guide", "guide and class", "class", "learned"],
)
def test_the_page_s_loop_and_noise_are_the_script_s(made, asked, tmp_path):
    plan = plan_sampling(model(**made), **asked)
    table = json.loads(json.dumps(sampler_table(plan)))
    copy_page(tmp_path)
    shape, learned = (1, 8, 8), table["learned_variance"]
    expected = draw.sample(
        table,
        StandIn(learned),
        StandIn(learned, 0.1) if table["guide"] else None,
        draw.noise(SEEDS, 0, shape) * np.float32(table["start"]),
        lambda k: draw.noise(SEEDS, k + 1, shape),
        draw.tell(table, SEEDS, []),
    )
    with opened(tmp_path, tmp_path / "profile") as browser:
        (tmp_path / "empty.html").write_text("<!doctype html><title>empty</title>")
        browser.open(f"{browser.address}empty.html", 400)
        script = DRAW.replace("NETWORK", STAND_IN).replace("TWICE", str(learned).lower())
        found = browser.value(script.replace("TABLE", json.dumps(table)).replace("SEEDS", str(SEEDS)))
    assert np.abs(np.reshape(found, expected.shape) - expected).max() < 2e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_says_what_it_is_of_and_what_it_lacks(tmp_path, width, dark):
    plan = plan_sampling(model(CLASSED, conditions=AGE))
    table = sampler_table(plan)
    table["files"] = {
        "float32": {"network": "network.onnx", "bytes": 2_000_000},
        "float16": {"network": "network.fp16.onnx", "bytes": 1_000_000},
    }
    (tmp_path / "table.json").write_text(json.dumps(table))
    copy_page(tmp_path)
    with opened(tmp_path, tmp_path / "profile") as browser:
        browser.open(f"{browser.address}index.html", width, dark=dark)
        browser.value("new Promise((done) => setTimeout(done, 300))")
        words = f"8 x 8 pixels, drawn by dpmpp-2m in 6 steps ({plan.evaluations} network passes each)"
        assert words in browser.value("document.body.innerText")
        options = browser.value("[...document.querySelectorAll('#class option')].map((each) => each.text)")
        assert options == ["All in turn", "boot", "sneaker", "none of these", "No class"]
        assert browser.value("document.getElementById('precision').selectedOptions[0].text") == "float16 (1.0 MB)"
        assert browser.value("[...document.querySelectorAll('#values input')].map((each) => each.name)") == [
            "age",
            "tall",
        ]
        assert browser.value("document.documentElement.scrollWidth") <= width
        unnamed = "[...document.querySelectorAll('input, select')].filter((each) => !each.labels.length).length"
        assert browser.value(unnamed) == 0
        assert browser.complaints == []
        # By keyboard alone: the button is reached and pressed, and what is missing is said.
        browser.value("document.getElementById('draw').focus()")
        browser.press(" ", 32)
        status = "document.getElementById('status').textContent"
        browser.value(f"""new Promise((done) => {{
            const look = () => {status}.includes("not here") ? done() : setTimeout(look, 50);
            look();
        }})""")
        assert "npm install onnxruntime-web" in browser.value(status)
        assert not browser.value("document.getElementById('draw').disabled")
