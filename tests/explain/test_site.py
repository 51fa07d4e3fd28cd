"""The whole site: made by the command, of the user's own images too, and looked at in a real browser."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from browser import CHROMIUM, Browser
from snowmelt.base.errors import SnowmeltError
from snowmelt.explain import chain, jump, shared, targets
from snowmelt.explain.setting import FAST, Setting
from snowmelt.explain.site import INDEX, MARK, make_chapters, write_site

BRIEF = replace(FAST, minutes=0.02, toy=20, samples=20, on_the_way=10, draws=500, chain=20)
OWN = (chain.chapter, jump.chapter, shared.chapter, targets.chapter)
RIGHT, HOME, END = ("ArrowRight", 39), ("Home", 36), ("End", 35)


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """Toys whose numbers nobody looks at here."""
    monkeypatch.setattr(shared, "STEPS", 6)


def test_the_users_own_images_and_model_are_shown(shoes, finished_run, tmp_path):
    setting = Setting(tmp_path, BRIEF, str(shoes), finished_run, "cpu")
    setting.check()
    made = [chapter for chapter, _ in make_chapters(setting, OWN)]
    assert [chapter.number for chapter in made] == [1, 2, 3, 6]
    assert not (tmp_path / "digits").exists()  # nothing was trained in place of the user's
    assert all("your model" in chapter.body for chapter in made[2:])
    index = write_site(made, tmp_path / "site", setting.about(1.0))
    assert str(finished_run) in index.read_text()
    # Three channels of eight by eight: the pictures are the user's, not digits.
    for chapter in made:
        first = re.search(r"data:image/png;base64,([^\"]+)", chapter.body).group(1)
        assert Image.open(io.BytesIO(base64.b64decode(first))).mode == "RGB"


def test_images_of_other_classes_than_the_model_is_told_are_refused_at_once(finished_run, shoes, tmp_path):
    for name in ("Boot", "Hat", "Sneaker"):
        source = shoes / ("Boot" if name == "Hat" else name)
        (tmp_path / "others" / name).mkdir(parents=True)
        for path in source.iterdir():
            (tmp_path / "others" / name / path.name).write_bytes(path.read_bytes())
    setting = Setting(tmp_path, BRIEF, str(tmp_path / "others"), finished_run, "cpu")
    with pytest.raises(SnowmeltError, match="its classes are not those"):
        setting.check()


def test_of_images_alone_the_model_is_that_of_the_digits(grey_file, tmp_path):
    setting = Setting(tmp_path, BRIEF, str(grey_file), None, "cpu")
    chapter = targets.chapter(setting)
    assert (tmp_path / "digits").exists()
    assert "model: " not in chapter.body
    assert chapter.measured.holds


def test_large_pictures_have_fewer_stops(tmp_path):
    np.save(tmp_path / "large.npy", np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8))
    setting = Setting(tmp_path, BRIEF, str(tmp_path / "large.npy"), None, "cpu")
    made = [make(setting) for make in (chain.chapter, jump.chapter)]
    assert all(chapter.measured.holds for chapter in made)
    assert sum(len(chapter.body) for chapter in made) < 4e6


@pytest.mark.usefixtures("interrupted")
def test_ctrl_c_in_the_training_ends_everything(tmp_path):
    """Training itself ends well then; no page may say that its model had all its time."""
    with pytest.raises(KeyboardInterrupt):
        _ = Setting(tmp_path, replace(BRIEF, minutes=1.0), device="cpu").model


def test_mistakes_are_told_before_anything_is_trained(refusal, tmp_path, monkeypatch):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "index.html").write_text("mine")
    assert "is no site of ours" in refusal("explain", "--out", precious, "--overwrite")
    assert (precious / "index.html").read_text() == "mine"
    (tmp_path / "file").write_text("x")
    assert "is a file" in refusal("explain", "--out", tmp_path / "file")
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / INDEX).write_text(f"<html><head>{MARK}</head></html>")
    assert "--overwrite" in refusal("explain", "--out", ours)
    assert "nowhere" in refusal("explain", "--out", tmp_path / "a", "--data", tmp_path / "nowhere")
    assert "none" in refusal("explain", "--out", tmp_path / "a", "--model", tmp_path / "none")
    monkeypatch.setattr("snowmelt.api.train", lambda *_, **__: pytest.fail("it has begun"))
    assert "cudda" in refusal("explain", "--out", tmp_path / "a", "--device", "cudda")
    assert not (tmp_path / "a").exists()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site in haste, made by the command."""
    from snowmelt.cli.main import run

    out = tmp_path_factory.mktemp("explain") / "site"
    code = run(["explain", "--fast", "--out", str(out), "--device", "cpu"])
    return code, out


@pytest.mark.slow
def test_every_number_holds_and_the_site_is_small(site):
    code, out = site
    assert code == 0
    pages = sorted(path.name for path in out.iterdir())
    assert len(pages) == 9
    assert sum(path.stat().st_size for path in out.iterdir()) < 8e6
    for page in pages:
        text = (out / page).read_text()
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text
        for link in re.findall(r'href="([^"#]+)"', text):
            assert link.startswith("data:") or (out / link).is_file(), link


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_nothing_overflows_or_complains_and_sliders_obey_the_keyboard(site, tmp_path, width, dark):
    _, out = site
    with Browser(tmp_path / "profile") as browser:
        for path in sorted(out.glob("*.html")):
            browser.open(path, width, dark=dark)
            assert browser.value("document.documentElement.scrollWidth") <= width, path.name
            light = "getComputedStyle(document.body).color"
            assert (browser.value(light) == "rgb(0, 0, 0)") is not dark, path.name
            sliders = browser.value("document.querySelectorAll('input[type=range]').length")
            assert sliders == (0 if path.name == INDEX else 1), path.name
            if sliders:
                _walk(browser, path.name)
            assert browser.complaints == [], path.name


def _walk(browser, name):
    """Reach the slider by Tab, move it by the keyboard, and see the figure change at every stop that is tried."""
    figure = "document.querySelector('figure.moving .panels').innerHTML"
    value = "document.querySelector('input[type=range]').value"
    words = "document.querySelector('output').textContent"
    for _ in range(20):
        browser.press("Tab", 9)
        if browser.value("document.activeElement.type") == "range":
            break
    assert browser.value("document.activeElement.type") == "range", name
    browser.press(*HOME)
    assert browser.value(value) == "0", name
    seen, said = {browser.value(figure)}, {browser.value(words)}
    # A slow machine makes few stops on the way of a training.
    most = int(browser.value("document.querySelector('input[type=range]').max"))
    for stop in range(1, 1 + min(3, most)):
        browser.press(*RIGHT)
        assert browser.value(value) == str(stop), name
        seen.add(browser.value(figure))
        said.add(browser.value(words))
    browser.press(*END)
    assert browser.value(value) == browser.value("document.querySelector('input[type=range]').max"), name
    assert len(seen | {browser.value(figure)}) > min(3, most), name
    assert len(said | {browser.value(words)}) > min(2, most), name
    assert browser.value("document.querySelector('input[type=range]').getAttribute('aria-valuetext')") == browser.value(
        words
    )
