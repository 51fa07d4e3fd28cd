"""What the pages say is what the code does."""

from dataclasses import fields
from pathlib import Path

from snowmelt.data.decode import EXTENSIONS
from snowmelt.data.mirror import FEWEST, TOLD_APART
from snowmelt.data.sources import SOURCES
from snowmelt.interop.foreign import Told
from snowmelt.interop.formats import formats
from snowmelt.training.initial import LR
from snowmelt.training.resolve import (
    AUGMENT_OF_FEW,
    DROPOUT_OF_FEW,
    FEW_IMAGES,
    LABEL_DROPOUT,
    SEEN_OFTEN,
    WEIGHTS,
)

DOCS = Path(__file__).parent.parent / "docs"
DATA = (DOCS / "data.md").read_text(encoding="utf-8")
CONVERSION = (DOCS / "conversion.md").read_text(encoding="utf-8")


def test_the_page_on_images_names_every_source_and_default():
    builtin = [entry.name for entry in SOURCES if entry.value.accepts is None and entry.value.named is None]
    for name in (*builtin, *EXTENSIONS):
        assert name in DATA, name
    for row in (
        f"| dropout | {DROPOUT_OF_FEW} where images are few, else the preset's: 0.1 of `small`, 0 of the others |",
        f"| augment | {AUGMENT_OF_FEW} where images are few, else none |",
        f"few under {FEW_IMAGES:,}; and where all their pixels are fewer than {WEIGHTS:,} numbers",
        f"and a run sees each more than {SEEN_OFTEN} times",
        f"| label_dropout | {LABEL_DROPOUT} where",
        f"above {TOLD_APART:.0%} (by a standard error), or with fewer than {FEWEST} different images",
    ):
        assert row in DATA.replace("\n", " "), row


def test_the_page_on_conversion_names_every_format_and_all_that_can_be_said():
    for name in formats.names():
        assert f"| `{name}` |" in CONVERSION
    for said in fields(Told):
        assert f"--{said.name.replace('_', '-')}" in CONVERSION
    assert f"{LR:.0e}".replace("e-0", "e-") in CONVERSION
