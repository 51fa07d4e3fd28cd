"""What the guides and the README tell the reader to type, typed: in a folder with a few small pictures.

One rule makes it short: `--minutes M` and `--images N` become `--steps 3` (6 with --resume), -n becomes 4, editing
takes 10 steps, --compare 3, plan measures 1, evaluations draw 8 samples, `explain` is in haste, and the published
network of 36 million weights sees 2 pictures a step. A block after `<!-- not run: why -->` is only parsed, one after
`<!-- slow: why -->` is run by `make test-slow`. Each page is followed from its beginning to its end, in a folder of its
own. The other pages of the site name commands with blanks to fill in, which are parsed.
"""

import gzip
import re
import shlex
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from markdown_it import MarkdownIt
from PIL import Image

from snowmelt.cli.main import app, run
from snowmelt.data.sources.fashion_mnist import VARIABLE
from snowmelt.data.sources.idx import FILES

ROOT = Path(__file__).parents[2]
FOLLOWED = [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
OTHERS = [page for page in sorted((ROOT / "docs").glob("*.md")) if "    snowmelt " in page.read_text(encoding="utf-8")]
PLACES = {"README": "clothes", "diffusers": "theirs"}  # fixtures; the others are followed in `place`
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
        if line.startswith("snowmelt: "):  # what a command says
            continue
        words = shlex.split(line.partition(" | ")[0].removesuffix("&"), comments=True)
        if words[:1] == ["snowmelt"] or "-m snowmelt" in " ".join(words):
            yield words[words.index("snowmelt") + 1 :]


def shortened(words):
    """The same command, done in a moment."""
    steps = "6" if "--resume" in words else "3"
    short, rest = [], iter(words)
    for word in rest:
        if word in ("--minutes", "--images") and words[0] != "plan":
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
        short += ["-n", "8"] * ("anatomy" not in words and "--fake" not in words)
    if words[0] == "edit" and "--steps" not in words:
        short += ["--steps", "10"]
    if words[0] == "plan":
        short += ["--steps", "1"]
    if words[0] == "explain":
        short += ["--fast"]
    if words[0] == "train" and "ddpm-cifar10" in words:
        short += ["--steps", "3", "--batch", "2"]
    return short


def draw(path, side=8, channels=3):
    """A picture of nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (side, side, 3) if channels == 3 else (side, side)
    pixels = np.random.default_rng(zlib.crc32(str(path).encode())).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(path)


def draw_mask(path, side):
    """The upper half is to be painted."""
    mask = np.zeros((side, side), np.uint8)
    mask[: side // 2] = 255
    Image.fromarray(mask).save(path)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with what the guides speak of."""
    monkeypatch.chdir(tmp_path)
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
    draw_mask("mask.png", 8)
    return tmp_path


@pytest.fixture
def clothes(place, monkeypatch):
    """Forty pictures in the place of Fashion-MNIST, and two to paint into, for the README."""
    random = np.random.default_rng(0)
    for name in FILES:
        shape = (40, 28, 28) if "images" in name else (40,)
        pixels = random.integers(0, 256 if "images" in name else 10, shape, np.uint8)
        head = bytes((0, 0, 8, len(shape))) + np.array(shape, ">u4").tobytes()
        (place / name).write_bytes(gzip.compress(head + pixels.tobytes()))
    monkeypatch.setenv(VARIABLE, str(place))
    draw(Path("shoe.png"), 28, channels=1)
    draw_mask("mask.png", 28)


@pytest.fixture
def theirs(place):
    """A small pipeline of diffusers under the name of a large one, for the guide to diffusers."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    sizes = {"sample_size": 8, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    unet = diffusers.UNet2DModel(in_channels=3, out_channels=3, **sizes, **blocks)
    pipeline = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(20))
    pipeline.save_pretrained(place / "google-ddpm-cifar10-32")


@pytest.mark.parametrize("page", [*FOLLOWED, *OTHERS], ids=lambda page: page.stem)
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
    for page in FOLLOWED:
        marks = {mark for mark, *_ in blocks(page)}
        if marks != {"not run"} and (not slow or "slow" in marks):
            yield pytest.param(page, id=page.stem)


@pytest.mark.parametrize("page", [*runnable(slow=False)])
def test_a_page_can_be_followed(page, request):
    request.getfixturevalue(PLACES.get(page.stem, "place"))
    walk(page, also_slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", [*runnable(slow=True)])
def test_its_long_commands_too(page, request):
    request.getfixturevalue(PLACES.get(page.stem, "place"))
    walk(page, also_slow=True)
