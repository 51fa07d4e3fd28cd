"""The pieces of a page: one file with everything in it, which needs no network and reads well on a phone."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #777; --panel: #8881; }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
p.about, figcaption, p.protocol { color: var(--soft); }
p.protocol { font-size: .85rem; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
img { max-width: 100%; image-rendering: pixelated; background: #fff; border-radius: .3rem; }
img.plot { image-rendering: auto; }
table { border-collapse: collapse; width: 100%; max-width: 44rem; }
td, th { padding: .3rem 1rem .3rem 0; text-align: left; vertical-align: top; }
th { font-weight: 500; } th.inner { padding-left: 1.2rem; font-weight: 400; color: var(--soft); }
td { font-variant-numeric: tabular-nums; }
tr { border-bottom: 1px solid var(--line); }
pre { overflow-x: auto; padding: .8rem; border: 1px solid var(--line); border-radius: .3rem; font-size: .85rem; }
pre.command { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--panel); }
ul.findings { padding-left: 1.2rem; }
summary { cursor: pointer; }
.strip { display: flex; flex-wrap: wrap; gap: 1rem; } .strip figure { width: 17rem; margin: 0; }
@media (max-width: 40rem) {
  body { margin: 1rem auto; }
  table, tbody, tr, th, td { display: block; }
  tr { padding: .4rem 0; } td, th, th.inner { padding: 0; }
  .strip figure { width: 100%; }
}
"""


def page(title: str, parts: Sequence[str], style: str = "") -> str:
    """The whole file; `style` adds to STYLE."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}{style}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def heading(text: str) -> str:
    """A section's."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; `kind` is a class of STYLE."""
    return f"<p{_class(kind)}>{html.escape(text)}</p>"


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Names and values; a name that begins with a space belongs to the one above it."""
    cells = "".join(
        f"<tr><th{_class('inner' if name.startswith(' ') else '')}>{html.escape(name.strip())}</th>"
        f"<td>{html.escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table>{cells}</table>"


def bullets(sentences: Sequence[str]) -> str:
    """A list of sentences."""
    return f'<ul class="findings">{"".join(f"<li>{html.escape(each)}</li>" for each in sentences)}</ul>'


def command(*texts: str) -> str:
    """Commands to copy."""
    return f'<pre class="command">{html.escape(chr(10).join(texts))}</pre>'


def folded(title: str, text: str) -> str:
    """Text that is shown when it is asked for."""
    return f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>"


def figure(png: bytes, caption: str, plot: bool = False) -> str:
    """A picture with its caption; a `plot` is smoothed when it is shrunk, pixels are not."""
    return (
        f'<figure><img{_class("plot" if plot else "")} alt="{html.escape(caption)}" src="{png_link(png)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def png_link(png: bytes) -> str:
    """A picture as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def strip(figures: Sequence[str]) -> str:
    """Figures side by side."""
    return f'<div class="strip">{"".join(figures)}</div>'


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
