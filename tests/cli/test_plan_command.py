"""`snowmelt plan`: measured on real steps, and nothing left behind."""

import json

import pytest


def test_a_plan_is_measured_and_nothing_is_written(snowmelt, minimal, shoes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = snowmelt("plan", shoes, "--preset", minimal, "--steps", 4)
    assert answer.code == 0, answer
    for part in (
        "images/s",
        "GFLOP an image",
        "memory",
        "disk",
        "in 10 minutes",
        "100,000,000 images",
        "snowmelt train",
    ):
        assert part in answer.out, part
    assert list(tmp_path.iterdir()) == []


def test_the_next_command_repeats_what_was_asked_for(snowmelt, minimal, shoes):
    answer = snowmelt("plan", shoes, "--preset", minimal, "--steps", 1, "--batch", 2, "--cond-image", shoes)
    flags = f"--preset {minimal} --cond-image {shoes} --batch 2"
    assert answer.out.splitlines()[-1] == f"Next: snowmelt train {shoes} {flags} --minutes 10"


def test_a_plan_for_longer_is_told_and_may_be_of_another_network(snowmelt):
    answer = snowmelt("plan", "digits", "--steps", 1, "--minutes", 60, "--device", "cpu")
    assert "by heart in 60 minutes" in answer.out
    assert "in 60 minutes" in answer.out.splitlines()[-6], answer.out
    assert answer.out.splitlines()[-1] == "Next: snowmelt train digits --device cpu --minutes 60"


def test_a_plan_as_json_adds_up(snowmelt, minimal, shoes):
    seen = json.loads(snowmelt("plan", shoes, "--preset", minimal, "--steps", 4, "--json").out)
    assert seen["low"] <= seen["images_per_second"] <= seen["high"]
    # Weights, two averages and the optimiser's two moments, all of float32, and what the meters hold.
    assert seen["checkpoint"] == pytest.approx(5 * 4 * seen["parameters"], rel=0.1)
    # Three checkpoints that are kept and one on its way; and the model, its weights and their average.
    assert seen["disk"] == pytest.approx(4 * seen["checkpoint"] + 2 * 4 * seen["parameters"], rel=0.05)
    assert seen["data_memory"] == seen["images"] * 8 * 8 * 3
    assert seen["peak_memory"] > 50_000_000


def test_a_published_system_s_own_length_is_told():
    from snowmelt.cli.plan import lines
    from snowmelt.training.budget import Budget
    from snowmelt.training.estimate import Estimate

    numbers = dict.fromkeys(("parameters", "peak_memory", "data_memory", "checkpoint", "disk"), 10**9)
    seen = Estimate(
        preset="x", gflop_per_image=1.0, batch=8, micro_batch=4, images=1000, images_per_second=1000.0, low=900.0,
        high=1100.0, published_images=102_400_000, data_place="kept", **numbers,
    )  # fmt: skip
    text = "\n".join(lines(seen, Budget(minutes=90)))
    assert "in 90 minutes   5,400,000 images, 5,400 times each image" in text
    assert "102,400,000 images: 28.4 hours" in text
    assert "4 at a time to fit the memory" in text
    assert "1.0 GB" in text


def test_steps_out_of_range_are_told(refusal, shoes):
    assert "--steps 0 is out of range" in refusal("plan", shoes, "--steps", 0)
