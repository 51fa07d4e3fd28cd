"""What users rely on. A name may be added here; changing or removing one breaks somebody's script."""

import re
from inspect import signature

import pytest
from cyclopts import App

import snowmelt
from snowmelt.cli.main import app

NAMES = [
    *("Schedule", "SnowmeltError", "Tableau", "as_k_diffusion", "evaluate", "from_diffusers", "from_k_diffusion"),
    *("load", "resume", "sample", "train"),
]

EDIT = [
    *("-n", "--count", "--out", "--sampler", "--steps", "--grid", "--set", "--clip", "--seed", "--class"),
    *("--guidance", "--fit", "--weights", "--device", "--format", "--overwrite"),
]
OPTIONS = {
    "demo": ["--out", "--minutes", "--seed", "--device", "--overwrite"],
    "explain": ["--out", "--data", "--model", "--fast", "--device", "--overwrite"],
    "train": [
        *("--data", "--data-dir", "--data_dir", "--train_data_dir"),
        *("--out", "--outdir", "--output_dir"),
        *("--resume", "--resume_from_checkpoint"),
        *("--size", "--resolution", "--image_size"),
        *("--channels", "--labels", "--fit", "--linear-light", "--cond-values", "--cond-image"),
        *("--flip", "--random_flip", "--no-flip", "--no-random_flip"),
        *("--augment", "--holdout", "--allow-unreadable", "--preset", "--init", "--minutes", "--images"),
        *("--steps", "--max_train_steps"),
        *("--batch", "--train_batch_size"),
        "--micro-batch",
        *("--lr", "--learning_rate"),
        "--optimizer",
        *("--warmup", "--decay", "--ema", "--guide-at", "--dropout", "--label-dropout"),
        *("--predict", "--prediction_type"),
        *("--schedule", "--noise-levels", "--zero-snr", "--no-zero-snr"),
        *("--learned-variance", "--no-learned-variance"),
        *("--loss", "--weight", "--density"),
        *("--precision", "--mixed_precision", "--recompute", "--gradient_checkpointing"),
        "--compile",
        *("--seed", "--device", "--log-every", "--checkpoint-minutes"),
        *("--keep", "--checkpoints_total_limit"),
        *("--log", "--dry-run"),
    ],
    "sample": [
        *("--model", "-n", "--count", "--out", "--outdir", "--sampler"),
        *("--steps", "--num_inference_steps"),
        *("--grid", "--set", "--clip", "--seed", "--seeds", "--class", "--value", "--cond-image", "--guidance"),
        *("--guidance-interval", "--guide", "--noise", "--compare", "--format", "--weights"),
        *("--batch", "--precision", "--mixed_precision", "--device", "--overwrite"),
    ],
    "eval": [
        *("--model", "--real", "--fake", "--metrics", "--features", "-n", "--count", "--nll-images"),
        *("--sampler", "--steps", "--grid", "--set"),
        *("--guidance", "--seed", "--weights", "--batch", "--device", "--out", "--json"),
    ],
    "sampler list": ["--json"],
    "sampler show": [
        *("--name", "--schedule", "--grid", "--steps", "--levels", "--set", "--zero-snr", "--json"),
    ],
    "sampler certify": ["--name", "--set", "--out", "--overwrite", "--json"],
    "sampler statistics": ["--model", "--data", "--out", "-n", "--count", "--levels", "--device", "--overwrite"],
    "edit inpaint": ["--model", "--image", "--mask", *EDIT],
    "edit vary": ["--model", "--image", "--strength", *EDIT],
    "edit interpolate": ["MODEL", "IMAGES", "--seeds", *EDIT],
    "edit upscale": ["--model", "--image", *EDIT],
    "edit colorize": ["--model", "--image", *EDIT],
    "convert": [
        *("--source", "--destination", "--from", "--to"),
        *("--size", "--resolution", "--image_size"),
        *("--predict", "--prediction_type"),
        *("--schedule", "--noise-levels", "--clock", "--heads", "--head-channels", "--qkv", "--null-class"),
        *("--weights", "--class"),
    ],
    "push": ["--run", "--repository", "--format", "--private", "--overwrite"],
    "export": [
        *("--model", "--onnx", "--sampler"),
        *("--steps", "--num_inference_steps"),
        *("--grid", "--set", "--clip", "--guidance", "--weights", "--float16", "--no-float16", "--web"),
    ],
    "data cache": ["--clear", "--limit", "--json"],
    "data check": [
        *("--data", "--size", "--channels", "--labels", "--fit", "--linear-light", "--preview", "--device", "--json"),
    ],
    "plan": [
        *("--data", "--preset", "--size", "--channels", "--labels", "--fit", "--linear-light", "--cond-values"),
        *("--cond-image", "--augment", "--batch", "--precision"),
        *("--device", "--minutes", "--steps", "--json"),
    ],
    "doctor": [],
}


def command_of(title: str) -> App:
    found = app
    for name in title.split():
        found = found[name]
    return found


def test_the_names_that_are_imported_are_these():
    assert snowmelt.__all__ == NAMES
    assert all(getattr(snowmelt, name) is not None for name in NAMES)
    assert set(NAMES) <= set(dir(snowmelt))
    with pytest.raises(AttributeError, match="no attribute 'smaple'"):
        _ = snowmelt.smaple


def test_the_commands_are_these():
    groups = {name for name in app if not name.startswith("-")}
    assert groups == {title.split()[0] for title in OPTIONS}
    for group in ("sampler", "edit", "data"):
        names = {f"{group} {name}" for name in app[group] if not name.startswith("-")}
        assert names == {title for title in OPTIONS if title.startswith(f"{group} ")}


@pytest.mark.parametrize("command", OPTIONS)
def test_the_options_of_each_command_are_these(command):
    arguments = command_of(command).assemble_argument_collection()
    assert [name for argument in arguments for name in argument.names if name != "*"] == OPTIONS[command]


def test_every_option_says_what_it_does():
    for command in OPTIONS:
        function = command_of(command).default_command
        for name in signature(function).parameters:
            if name == "common":  # a dataclass, each of whose fields carries its own help
                continue
            assert re.search(rf"\n    {name}\n        \w", function.__doc__), (command, name)
