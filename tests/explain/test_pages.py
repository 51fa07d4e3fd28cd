"""The pieces of the pages, the code that they show and the commands that they name."""

import ast
import json
import math
import re
from html.parser import HTMLParser

import pytest
import torch

from snowmelt.cli.main import app
from snowmelt.explain import chain, embedding, jump, loss, rivals, shared, steps, targets
from snowmelt.explain.moving import facts, moving, pictures, still
from snowmelt.explain.page import Chapter, Number, chapter_page, index_page
from snowmelt.explain.plot import Axis, Curve, Mark, axis, plot
from snowmelt.explain.site import MARK, write_site

MODULES = (chain, jump, shared, embedding, loss, targets, steps, rivals)
VOID = {"meta", "img", "input", "link", "br"}


class Reader(HTMLParser):
    """Checks that tags close in order; keeps ids, pictures and addresses."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.images, self.links = [], [], [], []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag not in VOID and tag != "path":
            self.open.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.images += [given] if tag == "img" else []
        self.links += [given[name] for name in ("href", "src") if name in given and tag != "img"]

    def handle_startendtag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def read(text):
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert len(set(reader.ids)) == len(reader.ids)
    return reader


def stops_of(text):
    return [json.loads(each) for each in re.findall(r'<script type="application/json">(.*?)</script>', text, re.S)]


def small_chapter(number=1, holds=True):
    figure = moving(
        [
            pictures([torch.full((2, 1, 4, 4), v) for v in (-1.0, 0.0, 1.0)], ["one", "two"], "squares"),
            plot([Curve("rising", [0, 1], [[0, 1], [0, 2], [0, 3]])], Axis("x", 0, 1), Axis("y", 0, 3), "a line"),
            facts([[("a", "1")], [("a", "2")], [("a", "3 </script>")]]),
        ],
        "How far",
        ["first", "second", "third </script>"],
        "What is to be seen.",
    )
    measured = Number("A number", 1.0, 1.0 if holds else 2.0, 0.1, "it is one")
    return Chapter(
        number, f"c{number}", "A title", "A statement.", f"{figure}{{number}}", measured, "x = 1 < 2", ("a",)
    )


def test_a_figure_says_at_every_stop_what_changes():
    chapter = small_chapter()
    text = chapter_page(chapter, [chapter])
    reader = read(text)
    (stops,) = stops_of(text)
    assert [stop["words"] for stop in stops] == ["first", "second", "third </script>"]
    for stop in stops:
        assert set(stop["change"]) <= set(reader.ids)
        assert len(stop["change"]) == 4  # two pictures, a line, a cell
    assert (
        len({stop["change"][name]["src"] for stop in stops for name in stop["change"] if "src" in stop["change"][name]})
        == 3
    )
    assert 'max="2"' in text


def test_every_picture_has_words_and_nothing_is_fetched():
    chapter = small_chapter()
    reader = read(chapter_page(chapter, [chapter, small_chapter(2)]))
    assert [each["alt"] for each in reader.images] == ["squares: one", "squares: two"]
    assert all(each["src"].startswith("data:image/png") for each in reader.images)
    assert set(reader.links) == {"index.html", "2-c2.html"}


def test_curves_break_where_there_is_no_number_and_stay_within_the_frame():
    panel = plot([Curve("a", [0, 1, 2, 3], [1.0, math.nan, 9.0, 0.5])], Axis("x", 0, 3), Axis("y", 0, 1), "a")
    (path,) = re.findall(r'class="curve c0" d="([^"]*)"', panel.html)
    assert path.count("M") == 2
    assert all(0 <= float(y) <= 250 for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path))
    assert panel.changes == ()


def test_a_mark_moves_with_the_slider():
    panel = plot([Curve("a", [0, 1], [0.0, 1.0])], Axis("x", 0, 1), Axis("y", 0, 1), "a", [Mark("here", [0, 0.5, 1])])
    places = [float(re.search(r"\(([\d.]+)", next(iter(c.values()))["transform"]).group(1)) for c in panel.changes]
    assert places[1] == pytest.approx((places[0] + places[2]) / 2, abs=0.1)


def test_axes_hold_their_values_and_number_them_roundly():
    assert axis("x", [2.0, 8.0]).low < 2 < 8 < axis("x", [2.0, 8.0]).high
    assert Axis("x", 0, 1).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert Axis("x", 0.001, 10, log=True).ticks() == pytest.approx([0.001, 0.01, 0.1, 1, 10])
    assert Axis("x", 0.6, 9, log=True).ticks() == pytest.approx([1, 2, 5])
    assert axis("x", [0.0, 1e-3, 1.0], log=True).low > 0


def test_a_number_that_does_not_hold_says_so():
    assert small_chapter().measured.holds
    bad = small_chapter(holds=False)
    assert not bad.measured.holds
    assert not Number("a", math.nan, 1.0, 0.5, "b").holds
    assert "It is not" in chapter_page(bad, [bad])
    assert "failed" in bad.measured.html()


def test_the_index_leads_to_every_chapter(tmp_path):
    chapters = [small_chapter(1), small_chapter(2)]
    index = write_site(chapters, tmp_path, "Made <here>")
    assert MARK in index.read_text()
    links = read(index.read_text()).links
    assert [link for link in links if link] == [each.file for each in chapters]
    assert all((tmp_path / link).is_file() for link in links)
    assert "Made &lt;here&gt;" in index_page(chapters, "Made <here>")


def test_a_still_figure_has_no_slider():
    assert "<input" not in still([plot([], Axis("x", 0, 1), Axis("y", 0, 1), "a")], "caption")


def _named(module):
    """Its last name; the code that fits a network to judge by takes its time."""
    name = module.__name__.rpartition(".")[2]
    return pytest.param(module, id=name, marks=[pytest.mark.slow] * (module is rivals))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_the_code_is_imports_and_three_lines(module):
    kinds = [type(each) for each in ast.parse(module.CODE).body]
    lines = [line for line in module.CODE.strip().splitlines() if line.strip() and not line.startswith("#")]
    assert sum(not line.startswith(("import ", "from ")) for line in lines) == 3
    assert max(map(len, lines)) <= 86  # what fits on the page
    assert kinds == sorted(kinds, key=lambda kind: kind not in (ast.Import, ast.ImportFrom))  # imports come first


def _claims(name, made, said):
    """That the lines make what their chapter shows."""
    if name == "chain":
        assert abs(float(made["x"].mean())) < 0.1
        assert float(made["x"].var()) == pytest.approx(1, abs=0.1)
    elif name == "jump":
        before, after = made["neighbours"]
        assert float((after - before).std()) < 0.5 < float(made["x_500"].std())
    elif name == "shared":
        first, last = made["frames"][0], made["frames"][-1]
        assert first.x.shape == first.D.shape == (6, 1, 8, 8)
        assert first.kept < 0.02 < last.kept == 1
    elif name == "embedding":
        assert torch.allclose(made["likeness"], embedding.inner_products().float(), atol=1e-3)
    elif name == "loss":
        best = loss.optima(300, made["x_t"]).best
        learned = loss.estimates(made["network"], 300, made["x_t"])
        assert float((learned - best["l1"]).abs().mean()) < float((learned - best["l2"]).abs().mean())
    elif name == "targets":
        assert re.findall(r"^(\w+) Rule", said, re.M) == list(targets.TARGETS)
    elif name == "steps":
        # In steps of 1, 100, 200, 300 and 400; it turns at 250.
        assert re.findall(r"peaks: (\d+)", said) == ["1", "1", "1", "2", "2"]
    else:
        assert made["drawn"].shape == (64, 1, 8, 8)
        assert set(made["found"]) >= {"fd", "prdc"}


@pytest.mark.parametrize("module", [_named(module) for module in MODULES])
def test_the_lines_of_python_make_what_the_chapter_shows(module, tmp_path, monkeypatch, capsys):
    """Trained for a moment instead of minutes."""
    monkeypatch.chdir(tmp_path)
    code = re.sub(r"minutes=[\d.]+", "steps=20", module.CODE).replace("n=1000", "n=64")
    made = {}
    exec(compile(code, module.__name__, "exec"), made)
    _claims(module.__name__.rpartition(".")[2], made, capsys.readouterr().out)


ATTEMPTS = sorted({each for module in MODULES for each in module.ATTEMPT})


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_the_commands_to_try_exist(attempt):
    words = attempt.split()
    assert words[0] == "snowmelt"
    command, _, _ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert command.__module__.startswith("snowmelt.cli.")
