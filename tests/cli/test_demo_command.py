"""`snowmelt demo`: the whole way, and the page at its end."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snowmelt import api

ROOT = Path(__file__).parents[2]


def test_no_other_run_is_taken_for_a_demo_and_none_is_lost_to_a_typo(refusal, finished_run, tmp_path):
    demo = tmp_path / "demo"
    wrongs = (("--device", "abacus"), ("--minutes", 0), ("--seed", -1))
    for out, wrong in ((finished_run, ()), *((demo, wrong) for wrong in wrongs)):
        if not out.exists():
            api.train("digits", out=out, steps=1)
        assert refusal("demo", "--out", out, "--overwrite", *wrong)
        assert (out / "config.yaml").is_file()


def test_the_demo_trains_draws_measures_and_reports(snowmelt, tmp_path):
    out = tmp_path / "demo"
    answer = snowmelt("demo", "--out", out, "--minutes", 0.1)
    assert answer.code == 0, answer
    assert answer.err == ""
    for words in ("Drawing 100 new digits", "Recognised:", "New:", str(out / "report.html"), "Next:"):
        assert words in answer.out
    picture = Image.open(out / "digits.png")
    assert np.asarray(picture).std() > 10
    shown = Image.open(ROOT / "docs" / "digits.png")
    assert (shown.size, shown.mode) == (picture.size, picture.mode)  # the README's picture is what the demo makes
    lines = (out / "samples" / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["class"] for line in lines] == [str(i % 10) for i in range(100)]
    page = (out / "report.html").read_text()
    assert "<h2>Samples</h2>" in page
    assert "<h2>Measured</h2>" in page
    assert page.count("data:image/png;base64,") >= 3


@pytest.mark.usefixtures("interrupted")
def test_ctrl_c_ends_the_demo_and_keeps_its_run(snowmelt, tmp_path):
    out = tmp_path / "demo"
    answer = snowmelt("demo", "--out", out)
    assert answer.code == 130
    assert f"snowmelt train --resume {out}" in answer.out
    assert "Drawing" not in answer.out
    assert (out / "model").is_dir()


def test_a_demo_is_replaced_on_request_only(refusal, snowmelt, tmp_path):
    out = tmp_path / "demo"
    api.train("digits", out=out, steps=1)
    before = (out / "config.yaml").read_text()
    assert "--overwrite" in refusal("demo", "--out", out, "--minutes", 0.02)
    assert (out / "config.yaml").read_text() == before
    assert snowmelt("demo", "--out", out, "--minutes", 0.02, "--overwrite").code == 0
    assert (out / "report.html").is_file()


def test_what_is_no_demo_is_not_replaced_even_on_request(refusal, tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    assert "is no run" in refusal("demo", "--out", tmp_path, "--overwrite")
    assert (tmp_path / "precious.txt").exists()


def test_the_first_picture_of_the_readme_is_the_demos():
    for page, place in ((ROOT / "README.md", "docs/digits.png"), (ROOT / "docs" / "index.md", "digits.png")):
        assert re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text(encoding="utf-8"))[0] == place
