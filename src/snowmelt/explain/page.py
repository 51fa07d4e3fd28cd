"""A chapter as a page of its own, and the page that leads to all of them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from snowmelt.explain.moving import SCRIPT
from snowmelt.report.html import command, heading, page

STYLE = """
:root { --c0: #1f6fb4; --c1: #d1602a; --c2: #2c8a4b; --c3: #8a55b5; --c4: #b02a4c; --c5: #777; --good: #2c8a4b; }
@media (prefers-color-scheme: dark) {
  :root { --soft: #aaa; --c0: #6cb2f0; --c1: #f2955f; --c2: #6cc98a; --c3: #c39bea; --c4: #f07a98; --c5: #999;
    --good: #6cc98a; }
}
body { max-width: 46rem; } sub, sup { line-height: 0; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .9rem; } nav .next { margin-left: auto; }
a { color: var(--c0); }
p.statement { font-size: 1.2rem; border-left: .25rem solid var(--c0); padding-left: .8rem; }
.number { border: 1px solid var(--line); border-radius: .4rem; padding: .8rem 1rem; margin: 1.5rem 0; }
.number p { margin: .2rem 0; } .number strong { font-size: 1.7rem; font-variant-numeric: tabular-nums; }
.number .verdict { color: var(--good); } .number.failed .verdict { color: var(--c4); font-weight: 600; }
figure { margin: 1.5rem 0; } figcaption { font-size: .9rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: 1rem; }
.panel { min-width: 0; max-width: 32rem; } .panel.pictures { grid-column: 1 / -1; max-width: none; }
.pictures { display: grid; justify-content: start; gap: .6rem; }
.pictures { grid-template-columns: repeat(var(--columns, 4), minmax(0, 9rem)); }
.pictures .title { grid-column: 1 / -1; margin: 0; font-size: .9rem; }
.pictures.whole { grid-template-columns: 1fr; } .pictures img { width: 100%; display: block; }
.pictures span { display: block; font-size: .8rem; line-height: 1.3; overflow-wrap: anywhere; }
svg.plot { width: 100%; height: auto; display: block; font: 12px system-ui, sans-serif; }
svg text { fill: currentColor; } .grid { stroke: var(--line); fill: none; stroke-width: .7; }
.curve { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.curve.thin { stroke-width: 1; } .curve.dashed { stroke-dasharray: 5 4; } .curve.dots { stroke-width: 4.5; }
.curve.fill { fill: var(--c); fill-opacity: .2; }
path.mark { stroke: var(--c, currentColor); stroke-width: 1.5; stroke-dasharray: 4 3; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); } .c4 { --c: var(--c4); }
.c5 { --c: var(--c5); }
ul.key { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem .9rem; padding: 0; margin: .3rem 0; }
ul.key { font-size: .8rem; } ul.key i { display: inline-block; width: 1.1rem; margin-right: .3rem; }
ul.key i { border-top: 3px solid var(--c); vertical-align: middle; }
ul.key .dashed i { border-top-style: dashed; } ul.key .dots i { border-top-style: dotted; }
ul.key .mark i, ul.key .upright i { border-top-style: dotted; border-top-color: var(--c, currentColor); }
.slider { display: flex; flex-wrap: wrap; gap: .2rem .8rem; align-items: baseline; margin: .8rem 0 .3rem; }
.slider { position: sticky; bottom: 0; padding: .3rem 0; background: Canvas; }
.slider label { font-weight: 500; } .slider output { font-variant-numeric: tabular-nums; }
.slider input { flex: 1 0 100%; min-width: 0; height: 2rem; accent-color: var(--c0); }
table.facts, table.wide { font-size: .9rem; } .scroll { overflow-x: auto; }
table.wide td, table.wide th { white-space: nowrap; }
ol.chapters { padding-left: 1.4rem; } ol.chapters li { margin: .9rem 0; } ol.chapters span { display: block; }
ol.chapters span { color: var(--soft); font-size: .9rem; }
pre code { font-size: .8rem; }
@media (max-width: 40rem) {
  table.facts, table.wide { display: table; } table.facts tr, table.wide tr { display: table-row; }
  table.facts td, table.facts th, table.wide td, table.wide th { display: table-cell; padding: .3rem .7rem .3rem 0; }
}
"""


@dataclass(frozen=True)
class Number:
    """What a chapter measures, beside what it must be.

    what    in words
    value   measured on the spot
    exact   by a formula, or by another way altogether
    within  how far apart the two may be, and why so far
    """

    what: str
    value: float
    exact: float
    within: float
    why: str
    digits: int = 4

    @property
    def holds(self) -> bool:
        """Whether they agree; what is not finite does not."""
        return abs(self.value - self.exact) <= self.within

    def __str__(self) -> str:
        return f"{self.what}: {self.value:.{self.digits}f}, and it must be {self._expected()}"

    def _expected(self) -> str:
        return f"{self.exact:.{self.digits}f} to within {self.within:.2g}"

    def html(self) -> str:
        """As a box on the page."""
        verdict = "It is." if self.holds else "It is not: this statement's code is wrong, or luck was very bad."
        failed = "" if self.holds else " failed"
        return (
            f'<div class="number{failed}"><p>{html.escape(self.what)}</p>'
            f"<p><strong>{self.value:.{self.digits}f}</strong></p>"
            f"<p>It must be {self._expected()} ({html.escape(self.why)}). "
            f'<span class="verdict">{verdict}</span></p></div>'
        )


@dataclass(frozen=True)
class Chapter:
    """One statement, shown.

    number     1 to 8
    name       of its file
    title, statement  of the source text, in plain words
    body       the chapter as HTML, in which `{number}` stands where the measured number is shown
    measured   that number
    code       lines of Python that make what is shown
    attempt    commands for the reader to try
    """

    number: int
    name: str
    title: str
    statement: str
    body: str
    measured: Number
    code: str
    attempt: tuple[str, ...]

    @property
    def file(self) -> str:
        """Its file in the site."""
        return f"{self.number}-{self.name}.html"


def prose(*paragraphs: str) -> str:
    """Paragraphs that may hold HTML of our own."""
    return "".join(f"<p>{each}</p>" for each in paragraphs)


def wide_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls on its own where the page is narrow."""
    top = "".join(f"<th>{html.escape(each)}</th>" for each in head)
    lines = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table class="wide"><tr>{top}</tr>{lines}</table></div>'


def chapter_page(chapter: Chapter, chapters: Sequence[Chapter]) -> str:
    """The whole file of a chapter."""
    place = chapters.index(chapter)
    before = chapters[place - 1] if place else None
    after = chapters[place + 1] if place + 1 < len(chapters) else None
    links = ['<a href="index.html">All eight statements</a>']
    if before is not None:
        links.append(f'<a href="{before.file}">← {before.number}. {html.escape(before.title)}</a>')
    if after is not None:
        links.append(f'<a class="next" href="{after.file}">{after.number}. {html.escape(after.title)} →</a>')
    nav = f"<nav>{''.join(links)}</nav>"
    parts = [
        nav,
        f"<main><h1>{chapter.number}. {html.escape(chapter.title)}</h1>",
        f'<p class="statement">{chapter.statement}</p>',
        chapter.body.replace("{number}", chapter.measured.html()),
        heading("In three lines of Python"),
        f'<pre tabindex="0"><code>{html.escape(chapter.code.strip())}</code></pre>',
        heading("Try"),
        command(*chapter.attempt),
        f"</main>{nav}<script>{SCRIPT}</script>",
    ]
    return page(f"{chapter.number}. {chapter.title}", parts, STYLE)


def index_page(chapters: Sequence[Chapter], about: str) -> str:
    """The page that leads to the chapters.

    about  what was used to make it, in words
    """
    items = "".join(
        f'<li value="{each.number}"><a href="{each.file}">{html.escape(each.title)}</a>. {each.statement}'
        f"<span>{html.escape(str(each.measured))}</span></li>"
        for each in chapters
    )
    parts = [
        "<main><h1>Diffusion models in eight statements</h1>",
        prose(
            "A diffusion model makes pictures out of noise, by undoing small amounts of it again and again. All there "
            "is to understand about it fits into eight statements. Each has a chapter here, and none of them asks to "
            "be believed: every picture, curve and number was computed when these pages were written, on this "
            "machine, by the library's own functions, and every chapter measures one number that would come out wrong "
            "if the statement, or our code for it, were wrong."
        ),
        f'<ol class="chapters">{items}</ol>',
        f'<p class="about">{html.escape(about)}</p></main>',
    ]
    return page("Diffusion models in eight statements", parts, STYLE)
