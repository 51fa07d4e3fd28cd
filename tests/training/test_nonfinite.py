"""Gradients and weights that are no numbers end nothing that was good."""

import pytest
import torch

from snowmelt import api
from snowmelt.training.checkpoint import load_latest
from snowmelt.training.metrics import read_metrics
from snowmelt.training.optimizer import Optimizer

INF = float("inf")


@pytest.fixture
def spoil_gradients(monkeypatch):
    """A function that makes the gradients of some steps infinite in one place."""

    def spoil(steps):
        original, count = Optimizer.step, [0]

        def step(self, lr):
            if count[0] in steps:
                self.parameters[-1].grad.flatten()[0] = INF
            count[0] += 1
            return original(self, lr)

        monkeypatch.setattr(Optimizer, "step", step)

    return spoil


def finite(run):
    return all(torch.isfinite(tensor).all() for tensor in load_latest(run)[1]["raw"].values())


def test_a_step_without_a_finite_gradient_is_skipped_and_counted(minimal, shoes, tmp_path, spoil_gradients):
    spoil_gradients({2, 3, 5})
    run = api.train(shoes, out=tmp_path / "run", preset=minimal, steps=8, log_every=1)
    assert finite(run)
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "loss" in row]
    assert [row["skipped"] for row in rows] == [0, 0, 1, 2, 2, 3, 3, 3]
    assert [row["grad_norm"] is None for row in rows] == [False, False, True, True, False, True, False, False]
    assert load_latest(run)[0].skipped == 3


def test_twenty_skipped_steps_in_a_row_stop_the_run_with_advice(minimal, shoes, tmp_path, spoil_gradients, refusal):
    spoil_gradients(range(5, 100))
    run = tmp_path / "run"
    message = refusal("train", shoes, "--out", run, "--preset", minimal, "--steps", 60, "--lr", 0.004)
    assert "has not been finite for 20 steps in a row, up to step 25" in message
    assert "checkpoint, of step 0, is untouched" in message
    assert "--lr 0.001" in message
    assert load_latest(run)[0].step == 0
    api.load(run)


def test_nineteen_are_borne(minimal, shoes, tmp_path, spoil_gradients):
    spoil_gradients(set(range(2, 21)) | set(range(22, 41)))
    run = api.train(shoes, out=tmp_path / "run", preset=minimal, steps=42, log_every=1)
    assert load_latest(run)[0].skipped == 38


def test_weights_that_are_no_numbers_are_never_saved(minimal, shoes, tmp_path, at_step, refusal):
    def poison(learner):
        with torch.no_grad():
            next(iter(learner.network.parameters())).fill_(float("nan"))

    run = tmp_path / "run"
    at_step(5, poison)
    message = refusal(
        "train", shoes, "--out", run, "--preset", minimal, "--steps", 9, "--checkpoint-minutes", 0, "--keep", 2
    )
    assert "The weights are not finite" in message
    assert "of step 5, is untouched" in message
    assert load_latest(run)[0].step == 5
    assert finite(run)
    assert torch.isfinite(api.sample(api.load(run), 2, steps=2).float()).all()


def test_a_preview_of_weights_that_are_no_numbers_is_black_and_ends_nothing(finished_run, tmp_path):
    from PIL import Image

    from snowmelt.training.preview import draw_preview

    model = api.load(finished_run)
    network = model.denoiser.network
    with torch.no_grad():
        next(iter(network.parameters())).fill_(float("nan"))
    draw_preview(tmp_path / "p.png", model.denoiser, [network], model.images, model.sampler, None)
    assert Image.open(tmp_path / "p.png").getextrema()[0][0] == 0
