"""A step with nothing left to the host, and the same step recorded as a CUDA graph."""

import pytest
import torch

from snowmelt.data.pipeline import load_data
from snowmelt.model.bundle import ImageSpec
from snowmelt.training.batches import Batches
from snowmelt.training.config import DataConfig
from snowmelt.training.distributed import World
from snowmelt.training.learner import Learner
from snowmelt.training.replay import WARM_UP, Replay
from snowmelt.training.resolve import Wishes, resolve

STEPS = WARM_UP + 5
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def weights_after(learner, batches, steps):
    for step in range(steps):
        learner.step(batches.draw(step), 1e-3 * (step + 1), step, 8 * (step + 1))
    names = [name for name, _ in learner.network.named_parameters()]
    found = {name: each.detach().cpu() for name, each in zip(names, learner.network.parameters(), strict=True)}
    averages = {f"average {name}": each.cpu() for name, each in learner.averages[0].weights.items()}
    return found | averages, learner.meters.read()[0]


@pytest.mark.parametrize("wishes", [{}, {"weight": "edm+learned"}, {"optimizer": "muon", "augment": 0.5}], ids=str)
def test_a_step_of_tensors_alone_is_the_step(setup, monkeypatch, wishes):
    made = setup(batch=8, **wishes)
    expected, row = weights_after(made.learner(), made.batches(), 3)
    learner = made.learner()
    monkeypatch.setattr(learner, "_replay", learner._learn)
    found, same = weights_after(learner, made.batches(), 3)
    for name, weight in expected.items():  # which have moved by 0.006: Adam makes rounding of small gradients visible
        torch.testing.assert_close(found[name], weight, rtol=0, atol=5e-5)
    assert same == pytest.approx(row, rel=1e-5)


def test_what_the_host_decides_on_is_not_replayed(setup, monkeypatch):
    for wishes in ({"micro_batch": 4}, {"micro_batch": 3}):
        learner = setup(batch=8, **wishes).learner()
        monkeypatch.setattr(learner, "_replay", lambda inputs: pytest.fail("it was replayed"))
        weights_after(learner, setup(batch=8).batches(), 1)


@on_gpu
@pytest.mark.parametrize("changes", [{}, {"optimizer": "muon"}, {"dropout": 0.2}], ids=str)
def test_a_recorded_step_is_the_step(shoes, minimal, changes):
    device, world = torch.device("cuda"), World()
    data = load_data(shoes, holdout=0.2)
    about = DataConfig(
        str(shoes), (8, 8), 3, "auto", "crop", False, 0.2, False, None, None, data.fingerprint, data.known_by
    )
    wishes = Wishes(**{"preset": minimal, "steps": 10, "precision": "fp32", "compile": True, **changes})
    config = resolve(wishes, "shoes", data, about, device, 1)[0]
    images = ImageSpec(*data.training.images.shape[1:], data.value_range, data.class_names)
    batches = Batches(config, data, config.process.noise_schedule(), device, world)
    expected, row = weights_after(_without_replay(Learner(config, images, device, world)), batches, STEPS)
    found, same = weights_after(Learner(config, images, device, world), batches, STEPS)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=5e-4)
    assert same == pytest.approx(row, rel=1e-4)


def _without_replay(learner):
    learner._replay = None
    return learner


@on_gpu
def test_inputs_of_a_replay_are_those_of_the_call():
    total = torch.zeros(1, device="cuda")
    replay = Replay(lambda inputs: total.add_(inputs["x"]), torch.device("cuda"))
    for number in range(1, 11):
        replay({"x": torch.full((1,), float(number), device="cuda")})
    assert total.item() == 55
