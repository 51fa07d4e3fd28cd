"""What the site is made with: links that are checked, docstrings that are set, a table that is the code's."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "tools"))

import links  # noqa: E402
import plain_docstrings  # noqa: E402
import reference  # noqa: E402

from snowmelt.explain.site import CHAPTERS  # noqa: E402
from snowmelt.interop.diffusers.scheduler import FLOW, KINDS, PREDICTIONS  # noqa: E402


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b%20c.html#x"></a><a href="https://x.org/y"></a><img src="gone.png">')
    (tmp_path / "b c.html").write_text('<a href="#top"></a>')
    assert links.broken(tmp_path) == ["a.html leads to gone.png, which is not there"]


def test_aligned_lists_become_definitions():
    text = ["Sums of `x_t`, a_t*b.", "", "alpha   the part that", "        is kept", "Raises nothing."]
    assert [line for line in plain_docstrings.as_rst(text) if line] == [
        "Sums of ``x_t``, a\\_t\\*b.",
        "``alpha``",
        "    the part that",
        "    is kept",
        "Raises nothing.",
    ]


def test_signatures_are_short():
    said = "(x: ~torch.Tensor, clip: str = 'none', options: dict[str, ~typing.Any]=<factory>, q: float = 1e-3)"
    assert plain_docstrings.shortened(said) == (
        "(x: Tensor, clip: str = 'none', options: dict[str, Any] = ..., q: float = 1e-3)"
    )
    assert plain_docstrings.shortened(None) is None


def test_the_rooms_of_the_picture_import_in_their_order():
    order, drawn = reference.layers(), reference.imports()
    assert len(drawn) > len(order)
    for room, other in drawn:
        if {room, other} <= set(order):
            assert order.index(room) < order.index(other), (room, other)


def test_the_guide_to_diffusers_has_their_schedulers_as_they_are_read():
    guide = (ROOT / "docs" / "guides" / "diffusers.md").read_text(encoding="utf-8")
    for name, kind in KINDS.items():
        assert f"| `{name}` | `--sampler {kind.sampler}` |" in guide
    assert FLOW in guide
    assert all(f'"{name}"' in guide for name in PREDICTIONS)


def test_the_front_page_leads_to_every_chapter():
    front = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    found = re.findall(r'href="explain/(\d)-[\w-]+\.html"', front)
    assert [int(number) for number in found] == list(range(1, len(CHAPTERS) + 1))
