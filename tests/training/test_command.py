"""The command that is kept with a run asks for the same run again."""

import shlex
from dataclasses import fields

import pytest
import yaml

from snowmelt import api
from snowmelt.training.command import command_of, prolonged
from snowmelt.training.config import load_config
from snowmelt.training.resolve import Wishes
from snowmelt.training.start import DataWishes

SETTINGS = {
    "steps": 2,
    "size": (8, 10),
    "channels": 1,
    "fit": "pad",
    "holdout": 0.2,
    "linear_light": True,
    "batch": 4,
    "lr": 0.002,
    "optimizer": "muon",
    "warmup": 100,
    "predict": "eps",
    "schedule": "cosine",
    "noise_levels": 50,
    "learned_variance": True,
    "loss": "l1",
    "flip": False,
    "augment": 0.1,
    "label_dropout": 0.2,
    "seed": 3,
    "log_every": 1,
}


def test_a_run_that_was_given_more_time_says_how(tmp_path, minimal, grey_file):
    run = api.train(grey_file, out=tmp_path / "run", preset=minimal, steps=2)
    command = load_config(run / "config.yaml").command
    api.resume(run)
    assert load_config(run / "config.yaml").command == command
    api.resume(run, steps=3)
    assert load_config(run / "config.yaml").command == f"{command}\nsnowmelt train --resume {run} --steps 3"
    assert prolonged(None, run, Wishes(minutes=2)) is None


def test_only_what_was_asked_for_is_in_it():
    assert command_of("digits", DataWishes(), Wishes(minutes=2)) == "snowmelt train digits --minutes 2"
    assert command_of("my pictures", DataWishes(size=64), Wishes(flip=True)) == (
        "snowmelt train 'my pictures' --size 64 --flip"
    )
    assert command_of("digits", DataWishes(cond_values="my table.csv")) == (
        "snowmelt train digits --cond-values 'my table.csv'"
    )
    assert command_of(object(), DataWishes(holdout=0.1), Wishes(steps=5)) == (
        "snowmelt.train(dataset, holdout=0.1, steps=5)"
    )


def test_the_command_of_a_run_makes_the_same_run(shoes, minimal, tmp_path, snowmelt, monkeypatch):
    run = api.train(shoes, out=tmp_path / "run", preset=minimal, **SETTINGS)
    config = load_config(run / "config.yaml")
    words = shlex.split(config.command)
    assert words[0] == "snowmelt"
    monkeypatch.setattr("snowmelt.training.loop.Trainer.measure_rate", lambda self: 1.0)
    answer = snowmelt(*words[1:], "--out", tmp_path / "again" / "run", "--dry-run")
    assert answer.code == 0, answer
    printed = yaml.safe_load("format_version" + answer.out.partition("format_version")[2].partition("\nparameters")[0])
    assert printed == yaml.safe_load(config.to_yaml())


@pytest.mark.parametrize("field", [field.name for kind in (DataWishes, Wishes) for field in fields(kind)])
def test_every_wish_is_a_flag(field):
    from inspect import signature

    from snowmelt.cli.train import train

    assert field in signature(train).parameters
