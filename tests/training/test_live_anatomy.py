"""The loss taken apart while a network trains, for a small share of the time."""

import torch

from snowmelt import api
from snowmelt.data.pipeline import load_data
from snowmelt.training.live_anatomy import LiveAnatomy
from snowmelt.training.metrics import read_metrics


def apart(run):
    return [row for row in read_metrics(run / "metrics.jsonl") if "anatomy" in row]


def test_a_run_writes_it_when_it_can_afford_it_and_at_the_end(shoes, minimal, tmp_path, monkeypatch):
    monkeypatch.setattr("snowmelt.training.loop.is_due", lambda step: step == 3)
    monkeypatch.setattr("snowmelt.training.live_anatomy.SHARE", 1e6)
    run = api.train(shoes, out=tmp_path / "run", preset=minimal, steps=6, holdout=0.2)
    rows = apart(run)
    assert [row["step"] for row in rows] == [3, 6]
    first, last = (row["anatomy"] for row in rows)
    assert len(first["training"]) == len(first["held_out"]) == len(first["optimum"]) == len(first["linear"]) == 32
    assert first["optimum"] == last["optimum"]
    assert first["training"] != last["training"]
    log = (run / "log.txt").read_text()
    assert last["advice"]
    assert all(f"Loss: {line}" in log for line in last["advice"])


def test_a_short_run_does_without(shoes, minimal, tmp_path, monkeypatch):
    monkeypatch.setattr("snowmelt.training.loop.is_due", lambda step: step == 3)
    assert apart(api.train(shoes, out=tmp_path / "run", preset=minimal, steps=6)) == []


def test_its_share_of_the_time_stays_small(finished_run, shoes, monkeypatch):
    model = api.load(finished_run)
    live = LiveAnatomy(load_data(shoes, holdout=0.2), model.denoiser, torch.device("cpu"))
    monkeypatch.setattr("snowmelt.training.live_anatomy.SHARE", 0.1)
    monkeypatch.setattr("snowmelt.training.live_anatomy.BOUND_SECONDS", 2.0)
    assert not live.affordable(29, 99, seconds=1)
    assert live.affordable(31, 99, seconds=1)
    assert not live.affordable(31, 2.9, seconds=1)
    clock = iter([0.0, 2.0, 2.0, 6.0])  # 2 s for the bounds and 4 s for the losses
    with monkeypatch.context() as patched:
        patched.setattr("snowmelt.training.stopwatch.time.monotonic", lambda: next(clock, 6.0))
        patched.setattr("snowmelt.training.live_anatomy.bounds", lambda *_, **__: "bounds")
        patched.setattr("snowmelt.training.live_anatomy.anatomy", lambda *_, **__: Nothing())
        live.row(model.denoiser.network)
    assert live.seconds == 4
    assert not live.affordable(99, 99, seconds=4)  # 2 + 4 + 4 more
    assert live.affordable(101, 99, seconds=4)


def test_the_bounds_are_taken_once_and_the_network_is_the_one_that_is_given(finished_run, shoes, monkeypatch):
    model, taken, judged = api.load(finished_run), [], []
    live = LiveAnatomy(load_data(shoes, holdout=0.2), model.denoiser, torch.device("cpu"))
    monkeypatch.setattr("snowmelt.training.live_anatomy.bounds", lambda *_, **__: taken.append(1) or "bounds")
    monkeypatch.setattr(
        "snowmelt.training.live_anatomy.anatomy",
        lambda denoiser, *rest, **_: judged.append((denoiser.network, rest[-1])) or Nothing(),
    )
    networks = [torch.nn.Identity(), torch.nn.Identity()]
    for network in networks:
        live.row(network)
    assert len(taken) == 1
    assert all(found is given for (found, _), given in zip(judged, networks, strict=True))
    assert [within for _, within in judged] == ["bounds", "bounds"]


def test_large_images_are_few_and_taken_a_few_at_a_time(finished_run, shoes, monkeypatch):
    model, data, sizes = api.load(finished_run), load_data(shoes, holdout=0.2), []
    monkeypatch.setattr("snowmelt.training.live_anatomy.NUMBERS", 7 * 8 * 8 * 3 + 5)

    class Counting(torch.nn.Module):
        def forward(self, x, c_noise, cond):
            sizes.append(len(x))
            return model.denoiser.network(x, c_noise, cond)

    live = LiveAnatomy(data, model.denoiser, torch.device("cpu"))
    live.row(Counting(), at_once=5)
    assert len(live._bounds.places) == 7
    assert max(sizes) == 5


class Nothing:
    def to_json(self):
        return {}
