"""`snowmelt demo`: the whole way, and the page at its end."""

import json

import numpy as np
from PIL import Image


def test_the_demo_trains_draws_measures_and_reports(snowmelt, tmp_path):
    out = tmp_path / "demo"
    answer = snowmelt("demo", "--out", out, "--minutes", 0.1)
    assert answer.code == 0, answer
    assert answer.err == ""
    for words in ("Drawing 100 new digits", "Recognised:", "New:", str(out / "report.html"), "Next:"):
        assert words in answer.out
    assert np.asarray(Image.open(out / "grid.png")).std() > 10
    lines = (out / "samples" / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["class"] for line in lines] == [str(i % 10) for i in range(100)]
    page = (out / "report.html").read_text()
    assert "<h2>Samples</h2>" in page
    assert "<h2>Measured</h2>" in page
    assert page.count("data:image/png;base64,") >= 3


def test_a_demo_is_replaced_on_request_only(refusal, snowmelt, tmp_path):
    out = tmp_path / "demo"
    out.mkdir()
    (out / "config.yaml").write_text("that of the demo before")
    assert "--overwrite" in refusal("demo", "--out", out, "--minutes", 0.02)
    assert (out / "config.yaml").read_text() == "that of the demo before"
    assert snowmelt("demo", "--out", out, "--minutes", 0.02, "--overwrite").code == 0
    assert (out / "report.html").is_file()


def test_what_is_no_demo_is_not_replaced_even_on_request(refusal, tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    assert "is no run" in refusal("demo", "--out", tmp_path, "--overwrite")
    assert (tmp_path / "precious.txt").exists()
