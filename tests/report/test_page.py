"""The run's page is one file, whole and readable anywhere."""

import base64
import io
import re
import shutil
from html.parser import HTMLParser

import pytest
from PIL import Image

from snowmelt.evaluation.features import fitted
from snowmelt.report.page import show, write_run_page


class Reader(HTMLParser):
    """Collects images and links, and checks that tags close in order."""

    def __init__(self):
        super().__init__()
        self.open, self.images, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "img":
            self.images.append(given)
        elif tag != "meta":
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src") and tag != "img"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(path):
    reader = Reader()
    reader.feed(path.read_text())
    assert reader.open == []
    return reader


@pytest.fixture
def run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


def test_a_page_holds_its_pictures_and_needs_nothing_from_outside(run):
    page = write_run_page(run)
    assert page == run / "report.html"
    reader = read(page)
    assert reader.links == []
    assert "://" not in page.read_text()
    assert len(reader.images) == 3  # the losses, a preview, the data
    for image in reader.images:
        kind, data = image["src"].split(",")
        assert kind == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(data))).load()
        assert image["alt"]


def test_samples_and_findings_come_first(run):
    show(run, "data_preview.png", [("Worth", "7 < 8 & more")])
    page = write_run_page(run)
    text = page.read_text()
    assert re.findall("<h2>(.*?)</h2>", text)[:2] == ["Samples", "Measured"]
    assert "7 &lt; 8 &amp; more" in text
    read(page)


def test_the_page_says_what_was_trained(run, shoes):
    text = write_run_page(run).read_text()
    assert f"{shoes}: 3 x 8 x 8; preset minimal; predicts edm on the edm schedule; 12 steps; 96 images" in text
    assert "fingerprint" in text  # the whole config


def test_what_minutes_have_decided_is_said_for_whoever_does_as_much_elsewhere(run):
    config = (run / "config.yaml").read_text()
    for old, new in (
        ("minutes: null", "minutes: 2.0"),
        ("steps: 12", "steps: null"),
        ("augment: 0.0", "augment: 0.15"),
    ):
        assert config.count(old) == 1
        config = config.replace(old, new)
    (run / "config.yaml").write_text(config)
    flags = "--steps 12 --preset minimal --dropout 0 --augment 0.15 instead of --minutes"
    assert flags in write_run_page(run).read_text()


def test_a_name_cannot_break_the_page(run):
    config = (run / "config.yaml").read_text().replace("name: shoes", 'name: "<script>alert(1)</script>"')
    (run / "config.yaml").write_text(config)
    text = write_run_page(run).read_text()
    assert "<script>" not in text
    read(run / "report.html")


def test_a_run_that_has_not_begun_has_a_page_too(run):
    (run / "metrics.jsonl").write_text("")
    shutil.rmtree(run / "previews")
    assert len(read(write_run_page(run)).images) == 1


def test_each_number_says_what_it_is_of(snowmelt, run, tmp_path, monkeypatch):
    """Another model's samples, or an earlier checkpoint's loss, are not the model's own."""
    monkeypatch.setattr(fitted, "STEPS", 2)
    monkeypatch.setattr(fitted, "PAIRS", 8)
    fake = tmp_path / "fake"
    assert snowmelt("sample", run, "-n", 60, "--steps", 1, "--out", fake, "--guidance", 1).code == 0
    assert (
        snowmelt("eval", run, "--fake", fake, "--metrics", "memorization", "--out", run / "eval" / "a.json").code == 0
    )
    first = sorted((run / "checkpoints").glob("step_*"))[0]
    out = run / "eval" / "b.json"
    assert snowmelt("eval", first, "--metrics", "nll", "--nll-images", 2, "--out", out).code == 0
    text = write_run_page(run).read_text()
    assert f"60 images of {fake}" in text.partition("Copies of training images")[2].partition("<h2")[0]
    likelihood = text.partition(">Likelihood<")[2].partition("<h2")[0]
    assert f"of other weights of the run (step {int(first.name[5:])}): b.json" in likelihood


def test_a_copy_of_a_preview_is_none(run):
    count = len(read(write_run_page(run)).images)
    preview = next((run / "previews").glob("step_*.png"))
    shutil.copy(preview, preview.with_name(f"{preview.stem} copy.png"))
    assert len(read(write_run_page(run)).images) == count
