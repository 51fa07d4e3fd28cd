"""Figures that move: panels, a range slider, and at every stop of it what changes. The first stop needs no script."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from snowmelt.explain.plot import Change, Panel, _numbers
from snowmelt.image.codec import UINT8, to_source
from snowmelt.report.html import png_link

# An element's attribute, or its text, becomes what the stop says.
SCRIPT = """
for (const figure of document.querySelectorAll("figure.moving")) {
  const stops = JSON.parse(figure.querySelector("script").textContent);
  const slider = figure.querySelector("input"), words = figure.querySelector("output");
  const show = () => {
    const stop = stops[slider.value];
    words.textContent = stop.words;
    slider.setAttribute("aria-valuetext", stop.words);
    for (const [id, attributes] of Object.entries(stop.change))
      for (const [name, value] of Object.entries(attributes)) {
        const element = document.getElementById(id);
        name === "text" ? element.textContent = value : element.setAttribute(name, value);
      }
  };
  slider.addEventListener("input", show);
  show();
}
"""


def moving(panels: Sequence[Panel], label: str, words: Sequence[str], caption: str, start: int = 0) -> str:
    """A figure with a slider.

    words    what each stop of the slider says; every panel that moves has as many changes
    label    what the slider changes
    caption  what is to be seen, as HTML
    """
    stops: list[Change] = [{} for _ in words]
    for panel in panels:
        if panel.changes:
            for stop, change in zip(stops, panel.changes, strict=True):
                stop.update(change)
    told = [{"words": each, "change": stop} for each, stop in zip(words, stops, strict=True)]
    # A closing tag inside the numbers would end the script.
    numbers = json.dumps(told, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
    slider = f"s{next(_numbers)}"
    return (
        f'<figure class="moving"><div class="panels">{"".join(panel.html for panel in panels)}</div>'
        f'<div class="slider"><label for="{slider}">{html.escape(label)}</label><output for="{slider}">'
        f'{html.escape(words[start])}</output><input id="{slider}" type="range" min="0" max="{len(words) - 1}" '
        f'step="1" value="{start}" aria-valuetext="{html.escape(words[start])}"></div>'
        f'<figcaption>{caption}</figcaption><script type="application/json">{numbers}</script></figure>'
    )


def still(panels: Sequence[Panel], caption: str) -> str:
    """A figure without a slider."""
    return (
        f'<figure><div class="panels">{"".join(panel.html for panel in panels)}</div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def pictures(
    stops: Sequence[Tensor],
    names: Sequence[str],
    alt: str,
    start: int = 0,
    columns: int | None = None,
    whole: bool = False,
    title: str = "",
) -> Panel:
    """Pictures side by side with their names beneath; one tensor a stop, or one alone for what does not move.

    stops    each [N, C, H, W] in [-1, 1]; what lies beyond is clipped, as a screen does
    names    N words, or none
    columns  in which they are laid out; four where None
    whole    one picture as wide as the page
    title    words above them, as HTML
    """
    ids = [f"p{next(_numbers)}" for _ in range(len(stops[0]))]
    uris = [[_uri(image) for image in stop] for stop in stops]
    cells = []
    for place, name in enumerate(ids):
        word = names[place] if names else ""
        about = f"{alt}: {word}" if word else f"{alt}, {place + 1}"
        caption = f"<span>{html.escape(word)}</span>" if word else ""
        cells.append(
            f'<div class="picture"><img id="{name}" alt="{html.escape(about)}" src="{uris[start][place]}">'
            f"{caption}</div>"
        )
    changes = [{name: {"src": uri} for name, uri in zip(ids, stop, strict=True)} for stop in uris]
    layout = f' style="--columns:{columns}"' if columns else ""
    kind = "panel pictures whole" if whole else "panel pictures"
    above = f'<p class="title">{title}</p>' if title else ""
    panel = f'<div class="{kind}"{layout}>{above}{"".join(cells)}</div>'
    return Panel(panel, tuple(changes) if len(stops) > 1 else ())


def facts(stops: Sequence[Sequence[tuple[str, str]]]) -> Panel:
    """A small table whose values change: at every stop the same names in the same order."""
    names = [name for name, _ in stops[0]]
    ids = [f"p{next(_numbers)}" for _ in names]
    rows = "".join(
        f'<tr><th>{html.escape(name)}</th><td id="{each}">{html.escape(value)}</td></tr>'
        for (name, value), each in zip(stops[0], ids, strict=True)
    )
    changes = [{each: {"text": value} for each, (_, value) in zip(ids, stop, strict=True)} for stop in stops]
    return Panel(f'<div class="panel"><table class="facts">{rows}</table></div>', tuple(changes))


def _uri(image: Tensor) -> str:
    """A picture [C, H, W] in [-1, 1] as a PNG in a link; of more than 4 channels the first 3."""
    pixels = to_source(image[None], UINT8)[0, : 3 if len(image) > 4 else len(image)].permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, format="PNG", optimize=True)
    return png_link(buffer.getvalue())
