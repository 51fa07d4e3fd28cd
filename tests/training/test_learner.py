"""One training step."""

from dataclasses import replace

import pytest
import torch


def gradients(learner, batch, monkeypatch):
    """The gradients that the optimiser is given for a batch."""
    kept = {}

    def step(lr):
        for name, parameter in zip(learner.optimizer.names, learner.optimizer.parameters, strict=True):
            kept[name] = parameter.grad.clone()
        return torch.zeros(()), torch.zeros(())

    monkeypatch.setattr(learner.optimizer, "step", step)
    learner.step(batch, 0.0, 0, len(batch.x_0))
    return kept


@pytest.mark.parametrize("weight", ["edm", "edm+learned"])
def test_micro_batches_give_the_gradient_and_the_loss_of_one_batch(setup, monkeypatch, weight):
    results = []
    for size in (8, 4, 3, 1):
        made = setup(batch=8, micro_batch=size, weight=weight)
        learner = made.learner()
        assert learner.config.micro_batch == size
        grads = gradients(learner, made.batches().draw(0), monkeypatch)
        results.append((grads, learner.meters.read()[0]["loss"]))
    (whole, loss), *others = results
    assert any(gradient.abs().max() > 1e-3 for gradient in whole.values())
    for parts, other_loss in others:
        assert other_loss == pytest.approx(loss, rel=1e-6)
        for name, gradient in whole.items():
            torch.testing.assert_close(parts[name], gradient, rtol=0, atol=1e-6)


def test_the_memory_is_fitted_by_each_process_alone(setup, monkeypatch):
    """Another process may need more passes or fewer: what speaks to all is not called."""
    made = setup(batch=8)
    learner, sizes = made.learner(), []
    plain = type(learner.objective).forward

    def forward(self, x_0, *rest):
        sizes.append(len(x_0))
        if len(x_0) > 2:
            raise torch.OutOfMemoryError
        return plain(self, x_0, *rest)

    monkeypatch.setattr(type(learner.objective), "forward", forward)
    monkeypatch.setattr(learner, "_parallel", None)
    learner.fit_memory(made.batches().draw(0))
    assert (learner.micro_batch, sizes) == (2, [8, 4, 2, 2, 2, 2])


def test_what_was_done_to_the_images_reaches_the_network_and_is_learned(setup, monkeypatch):
    made = setup(batch=8, augment=0.9)
    learner, batch = made.learner(), made.batches().draw(0)
    layer = next(name for name, _ in learner.network.named_parameters() if "augmentation" in name)
    assert gradients(learner, batch, monkeypatch)[f"network.{layer}"].abs().max() > 0
    learner = made.learner()
    for step in range(30):
        learner.step(made.batches().draw(step), 1e-2, step, 8 * (step + 1))
    x, level = torch.randn(8, 3, 8, 8), torch.zeros(8)
    with torch.no_grad():
        network = learner.network.eval()
        told, untold = network(x, level, batch.cond), network(x, level, replace(batch.cond, augmentation=None))
        nothing = network(x, level, replace(batch.cond, augmentation=torch.zeros(8, 9)))
    assert (told - untold).abs().max() > 1e-3
    assert torch.equal(untold, nothing)  # samplers tell nothing


def test_guidance_compares_under_the_same_augmentation(setup):
    made = setup(batch=8, augment=0.9)
    cond = made.batches().draw(0).cond
    withheld = cond.withheld(8, torch.device("cpu"))
    assert torch.equal(withheld.augmentation, cond.augmentation)
    assert bool(withheld.null.all())


def test_a_step_moves_the_weights_and_both_averages(setup):
    made = setup(batch=8)
    learner = made.learner()
    before = {name: {k: v.clone() for k, v in group.items()} for name, group in learner.state().items()}
    learner.step(made.batches().draw(0), 1e-3, 0, 8)
    for group in ("raw", "ema_0", "ema_1"):
        after = learner.state()[group]
        assert any(not torch.equal(after[name], tensor) for name, tensor in before[group].items()), group


def test_two_learners_of_one_seed_are_equal_and_of_another_are_not(setup):
    one, same, other = (setup(seed=seed).learner().state()["raw"] for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_dropout_follows_the_step_and_not_the_past(setup, monkeypatch):
    made = setup(batch=8, dropout=0.5)
    batch = made.batches().draw(0)
    one, other = made.learner(), made.learner()
    torch.manual_seed(1)
    first = gradients(one, batch, monkeypatch)
    torch.manual_seed(2)
    second = gradients(other, batch, monkeypatch)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_averaged_network_is_the_average_and_leaves_the_network_alone(setup):
    made = setup(batch=8)
    learner = made.learner()
    for step in range(3):
        learner.step(made.batches().draw(step), 1e-2, step, 8 * (step + 1))
    raw = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    averaged = learner.averaged().state_dict()
    for name, tensor in learner.averages[0].weights.items():
        assert torch.equal(averaged[name], tensor)
    assert all(torch.equal(tensor, raw[name]) for name, tensor in learner.network.state_dict().items())
    assert any(not torch.equal(averaged[name], raw[name]) for name in raw)
