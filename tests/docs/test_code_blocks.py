"""What the guides tell the reader to type, typed: in a folder with a few small pictures.

One rule makes it short: `--minutes M` and `--images N` become `--steps 3` (6 with --resume), -n becomes 4, editing
takes 10 steps, --compare 3, plan measures 1, and evaluations draw 8 samples. A block after `<!-- not run: why -->` is
only parsed, one after `<!-- slow: why -->` is run by `make test-slow`. Each guide is followed from its beginning to its
end, in a folder of its own; the README's commands, which want data sets and minutes, are parsed.
"""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from snowmelt.cli.main import app, run

ROOT = Path(__file__).parents[2]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
MARK = re.compile(r"<!-- (not run|slow): (\S.*) -->")


def blocks(path):
    """(mark, language, text) of each block of code."""
    mark = None
    for token in MarkdownIt().parse(path.read_text(encoding="utf-8")):
        if token.type == "html_block":
            found = MARK.fullmatch(token.content.strip())
            mark = found and found[1]
        elif token.type in ("fence", "code_block"):
            yield mark, token.info, token.content
            mark = None
        else:
            mark = None


def commands(text):
    """The words of each command of ours."""
    for line in text.splitlines():
        words = shlex.split(line.removesuffix("&"), comments=True)
        if words[:1] == ["snowmelt"] or "-m snowmelt" in " ".join(words):
            yield words[words.index("snowmelt") + 1 :]


def shortened(words):
    """The same command, done in a moment."""
    steps = "6" if "--resume" in words else "3"
    short, rest = [], iter(words)
    for word in rest:
        if word in ("--minutes", "--images"):
            short += ["--steps", steps]
            next(rest)
        elif word == "-n":
            short += [word, "4"]
            next(rest)
        elif word == "--compare":
            short += [word, re.sub(r":\d+", ":3", next(rest))]
        else:
            short.append(word)
    if words[0] == "eval":
        short += ["-n", "8"] * ("anatomy" not in words)
    if words[0] == "edit" and "--steps" not in words:
        short += ["--steps", "10"]
    if words[0] == "plan":
        short += ["--steps", "1"]
    return short


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with what the guides speak of."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)

    def draw(path, side=8, channels=3):
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (side, side, 3) if channels == 3 else (side, side)
        Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(path)

    for number in range(24):
        for folder in ("photos", "animals/cat", "animals/dog", "faces", "large"):
            draw(Path(folder, f"{number}.png"))
        draw(Path("small", f"{number}.png"), 4)
    draw(Path("new/a.png"), 4)
    rows = [f"{number}.png,{20 + number},{number % 2}" for number in range(24)]
    Path("known.csv").write_text("\n".join(["file_name,age,smiling", *rows]))
    for name in ("photo", "other"):
        draw(Path(f"{name}.png"))
    draw(Path("small.png"), 4)
    draw(Path("grey.png"), channels=1)
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 255
    Image.fromarray(mask).save("mask.png")
    return tmp_path


@pytest.mark.parametrize("page", [*GUIDES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_every_command_exists(page):
    found = [words for _, _, text in blocks(page) for words in commands(text)]
    assert found
    for words in found:
        app.parse_args(words, exit_on_error=False, print_error=False)


def walk(page, also_slow):
    for mark, language, text in blocks(page):
        if mark == "not run" or (mark == "slow" and not also_slow):
            continue
        if language == "python":
            exec(compile(text.replace("minutes=10", "steps=3").replace("64", "4"), str(page), "exec"), {})
            continue
        for words in commands(text):
            assert run(shortened(words)) == 0, words


def runnable(slow):
    for page in GUIDES:
        marks = {mark for mark, *_ in blocks(page)}
        if marks != {"not run"} and (not slow or "slow" in marks):
            yield pytest.param(page, id=page.stem)


@pytest.mark.parametrize("page", [*runnable(slow=False)])
@pytest.mark.usefixtures("place")
def test_a_guide_can_be_followed(page):
    walk(page, also_slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", [*runnable(slow=True)])
@pytest.mark.usefixtures("place")
def test_its_long_commands_too(page):
    walk(page, also_slow=True)
