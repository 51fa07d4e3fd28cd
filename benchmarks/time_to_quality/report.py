"""The rows of a result file as a markdown table and as one picture."""

from __future__ import annotations

from pathlib import Path

from benchmarks.time_to_quality import data, pictures

COLUMNS = (
    "system", "minutes", "seed", "parameters", "images seen", "images/s", "train wall s", "evaluations",
    "s / 1000 samples", "Frechet", "floor", "KID x 1000 (95%)", "GFLOP/s before, between, after",
)  # fmt: skip


def order(row: dict) -> tuple:
    """Rows by budget, then by protocol, then by what the reader wants to know."""
    return row["minutes"], row["n"], row["sampling_steps"], row["frechet"]


def grid_name(row: dict) -> str:
    """File name, without ending, of everything that belongs to a row."""
    return f"{row['system']}-{row['minutes']:g}min-seed{row['seed']}-n{row['n']}-steps{row['sampling_steps']}"


def table(rows: list[dict]) -> str:
    """A markdown table, one line a row, with warnings below it where rows must not be compared."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in sorted(rows, key=order):
        rates = (row[f"matmul_gflops_{when}"] for when in ("before", "between", "after"))
        parameters, seen, speed = (row.get(key) for key in ("parameters", "images_seen", "images_per_s"))
        cells = (
            row["system"] + (" (class-conditional)" if row.get("conditional") else ""),
            f"{row['minutes']:g}",
            row["seed"],
            f"{parameters / 1e6:.1f}M" if parameters else "?",
            f"{seen:,}" if seen else "?",
            f"{speed:.1f}" if speed else "?",
            f"{row['train_s']:.0f}",
            row["evaluations"],
            f"{1000 * row['sample_s'] / row['n']:.0f}",
            f"{row['frechet']:.2f}",
            f"{row['frechet_floor']:.2f}",
            f"{1000 * row['kid']:.1f} ({1000 * row['kid_low']:.1f} to {1000 * row['kid_high']:.1f})",
            ", ".join(f"{rate:.0f}" for rate in rates),
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join([*lines, *_notes(rows)])


def _notes(rows: list[dict]) -> list[str]:
    protocols = sorted({(row["n"], row["sampling_steps"], row["threads"]) for row in rows})
    notes = [f"\nn = {n} samples, {steps} sampling steps, {threads} threads." for n, steps, threads in protocols]
    rates = [row[f"matmul_gflops_{when}"] for row in rows for when in ("before", "between", "after")]
    if rates and max(rates) > 1.15 * min(rates):
        notes.append(
            f"\nWARNING: the machine's speed was not constant ({min(rates):.0f} to {max(rates):.0f} GFLOP/s):"
            " minutes of different rows are not the same amount of work."
        )
    if len(protocols) > 1:
        notes.append("\nWARNING: a Frechet distance depends on n; compare rows of one protocol only.")
    if len({row["classifier"] for row in rows}) > 1:
        notes.append("\nWARNING: these rows were judged by different classifiers and must not be compared.")
    return notes


def picture(rows: list[dict], folder: Path) -> list[Path]:
    """One labelled picture for each budget and protocol, of its first seed, beside real test images."""
    folder.mkdir(parents=True, exist_ok=True)
    real = folder / "real.png"
    pictures.grid(data.load("t10k")[0]).save(real)
    written = []
    for key in sorted({(row["minutes"], row["n"], row["sampling_steps"]) for row in rows}):
        group = [row for row in rows if (row["minutes"], row["n"], row["sampling_steps"]) == key]
        first = min(row["seed"] for row in group)
        chosen = [row for row in sorted(group, key=order) if row["seed"] == first]
        panels = [("real images", f"the test set; floor {group[0]['frechet_floor']:.2f}", real)]
        for row in chosen:
            path = folder / f"{grid_name(row)}.png"
            if path.exists():
                seen = f"{row['images_seen']:,} images seen, " if row.get("images_seen") else ""
                panels.append((row["system"], f"{seen}Frechet {row['frechet']:.2f}", path))
        minutes, n, steps = key
        out = folder / f"side-by-side-{minutes:g}min-n{n}-steps{steps}.png"
        pictures.side_by_side(panels, out)
        written.append(out)
    return written
