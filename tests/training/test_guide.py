"""A run keeps an early average of its own, and samples of its model are led away from it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from snowmelt import api
from snowmelt.base.errors import SnowmeltError
from snowmelt.model.bundle import load_model
from snowmelt.model.condition import Condition
from snowmelt.model.guidance import EVERYWHERE, AutoGuided, Interval
from snowmelt.training.checkpoint import load_latest
from snowmelt.training.initial import read_initial
from snowmelt.training.learner import Learner


@pytest.fixture
def averages(monkeypatch):
    """The average after every step of a run, by step."""
    kept = {}
    step = Learner.step

    def watched(self, batch, lr, number, images):
        step(self, batch, lr, number, images)
        kept[number + 1] = {name: weight.clone() for name, weight in self.averages[0].weights.items()}

    monkeypatch.setattr(Learner, "step", watched)
    return kept


def guide_of(run):
    return load_model(run).guide.network.state_dict()


def same(found, expected):
    return all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.fixture
def guided_run(minimal, shoes, tmp_path):
    return api.train(shoes, out=tmp_path / "run", preset=minimal, steps=20, guide_at=0.25, lr=0.01)


def test_the_guide_is_the_average_of_the_first_step_after_that_part_of_the_run(minimal, shoes, tmp_path, averages):
    for part, step in ((0.25, 5), (0.26, 6), (1.0, 20)):
        run = api.train(shoes, out=tmp_path / f"run{part}", preset=minimal, steps=20, guide_at=part, lr=0.01)
        assert same(guide_of(run), averages[step])
        assert not same(guide_of(run), averages[step - 1])
        assert load_latest(run)[0].guide_images == step * 8


def test_no_guide_is_kept_unless_it_is_asked_for(minimal, shoes, tmp_path):
    run = api.train(shoes, out=tmp_path / "run", preset=minimal, steps=20)
    assert load_model(run).guide is None
    assert sorted(path.name for path in (run / "model").iterdir()) == [
        *("config.json", "model.safetensors", "raw.safetensors")
    ]
    assert api.plan_sampling(api.load(run), steps=4).away is None


def test_a_run_that_is_prolonged_keeps_its_guide_until_a_later_one_is_nearer(guided_run, averages):
    api.resume(guided_run, steps=36)  # due at 9, and 5 is nearer to it than 21
    assert load_latest(guided_run)[0].guide_images == 5 * 8
    api.resume(guided_run, steps=60)  # due at 15, and 37 is not as far from it as 5
    assert load_latest(guided_run)[0].guide_images == 37 * 8
    assert same(guide_of(guided_run), averages[37])


def test_an_average_further_from_where_it_is_due_is_not_kept_though_the_kept_one_is_early(guided_run):
    api.resume(guided_run, steps=36)
    api.resume(guided_run, steps=44)  # due at 11, and 5 is nearer to it than 37
    assert load_latest(guided_run)[0].guide_images == 5 * 8


def test_the_guide_computes_in_the_precision_of_its_model(guided_run):
    model = api.load(guided_run, precision="bf16")
    assert model.denoiser.autocast == model.guide.autocast == torch.bfloat16
    assert api.load(guided_run).guide.autocast is None


def test_a_resumed_run_has_the_guide_of_one_that_was_not_interrupted(minimal, shoes, tmp_path, at_step):
    import signal

    common = {"preset": minimal, "steps": 20, "guide_at": 0.25, "lr": 0.01}
    whole = api.train(shoes, out=tmp_path / "whole", **common)
    at_step(9, lambda learner: signal.raise_signal(signal.SIGINT))
    halves = api.train(shoes, out=tmp_path / "halves", **common)
    at_step(9, lambda learner: None)
    api.resume(halves)
    assert same(guide_of(halves), guide_of(whole))


def test_a_budget_in_minutes_keeps_the_average_nearest_to_what_turned_out_due(minimal, shoes, tmp_path):
    run = api.train(shoes, out=tmp_path / "run", preset=minimal, minutes=0.05, guide_at=0.25)
    position = load_latest(run)[0]
    plans = dict(position.revisions)
    total, kept = math.inf, None
    for step in range(position.step):  # what the run knew at each of its steps
        total, images = plans.get(step, total), (step + 1) * 8
        if images >= 0.25 * total and (kept is None or images * kept < (0.25 * total) ** 2):
            kept = images
    assert position.guide_images == kept
    assert load_model(run).guide is not None


def test_samples_are_led_away_from_no_class_and_from_it_by_the_formula_and_cost_three_times(guided_run):
    model = api.load(guided_run)
    assert (model.sampler.guidance, model.sampler.class_guidance) == (2.0, 1.15)
    plan = api.plan_sampling(model, steps=4)
    assert (plan.away, plan.guidance, plan.class_guidance) == ("own", 2.0, 1.15)
    assert plan.evaluations == 8  # of levels 80, 6.4, 1.3, 0.2
    assert api.plan_sampling(model, steps=4, interval=EVERYWHERE).evaluations == 12
    x, level = torch.randn(2, *model.images.shape), model.denoiser.schedule.at_log_snr(torch.zeros(2).double())
    cond = Condition(label=torch.tensor([0, 1]))
    D, none = model.denoiser(x, level, cond), model.denoiser(x, level, cond.withheld(2, x.device))
    weak = model.guide(x, level, cond)
    assert min((D - weak).abs().max(), (D - none).abs().max()) > 1e-3
    led = none + 1.15 * (D - none)
    torch.testing.assert_close(plan.denoiser(x, level, cond), weak + 2.0 * (led - weak))


def test_where_no_class_is_told_the_guide_alone_leads(guided_run):
    plan = api.plan_sampling(api.load(guided_run), steps=4)
    x, level = (
        torch.randn(2, *plan.model.images.shape),
        plan.model.denoiser.schedule.at_log_snr(torch.zeros(2).double()),
    )
    D, weak = plan.model.denoiser(x, level), plan.model.guide(x, level)
    torch.testing.assert_close(plan.denoiser(x, level), weak + 2.0 * (D - weak))
    withheld = Condition(label=torch.tensor([0, 1])).withheld(2, x.device)
    torch.testing.assert_close(plan.denoiser(x, level, withheld), weak + 2.0 * (D - weak))


def test_a_run_that_is_told_no_class_or_more_or_is_never_without_has_its_guide_alone(minimal, shoes, tmp_path):
    known = tmp_path / "known.csv"
    files = [path.relative_to(shoes) for path in shoes.rglob("*.png")]
    known.write_text("file_name,size\n" + "\n".join(f"{file},{i}" for i, file in enumerate(files)) + "\n")
    one = shoes / next(path.name for path in shoes.iterdir() if path.is_dir())
    alike = tmp_path / "alike.csv"
    alike.write_text("file_name,label\n" + "\n".join(f"{path.name},shoe" for path in one.iterdir()) + "\n")
    cases = {
        "none": (shoes, {"labels": "none"}),
        "always": (shoes, {"label_dropout": 0.0}),
        "values": (shoes, {"cond_values": str(known)}),
        "one class": (one, {"labels": str(alike)}),
    }
    for name, (data, said) in cases.items():
        run = api.train(data, out=tmp_path / name, preset=minimal, steps=8, guide_at=0.25, lr=0.01, **said)
        plan = api.plan_sampling(api.load(run), steps=4)
        assert (plan.away, plan.class_guidance, plan.evaluations) == ("own", 1.0, 6)


def test_a_run_that_goes_on_from_a_model_is_led_as_it_was_trained_itself(guided_run):
    sampler = read_initial(str(guided_run)).process.sampler
    assert (sampler.guidance, sampler.class_guidance) == (1.0, 1.0)


def test_a_checkpoint_is_drawn_from_as_the_model_of_its_step(guided_run):
    newest = sorted((guided_run / "checkpoints").glob("step_*"))[-1]
    model, again = api.load(guided_run), api.load(newest)
    for one, other in zip(model.guide.network.parameters(), again.guide.network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(api.sample(model, 2, seed=0), api.sample(again, 2, seed=0))


def test_an_edit_is_led_away_from_it_as_a_sample_is(guided_run, snowmelt, tmp_path):
    common = ("--class", "Boot", "--steps", 3, "--out")
    assert snowmelt("edit", "interpolate", guided_run, "--seeds", "4,6", "-n", 2, *common, tmp_path / "way").code == 0
    assert snowmelt("sample", guided_run, "--seeds", "4,6", *common, tmp_path / "ends").code == 0
    way, ends = (np.stack([np.asarray(Image.open(tmp_path / each / f"00000{i}.png")) for i in (0, 1)]).astype(int)
                 for each in ("way", "ends"))  # fmt: skip
    assert np.abs(way - ends).max() <= 1
    rows = [json.loads(line) for line in (tmp_path / "way" / "samples.jsonl").read_text().splitlines()]
    assert [(row["part"], row["guidance"], "seed" in row) for row in rows] == [(0, 2, False), (1, 2, False)]
    assert {(row["class_guidance"], row["evaluations"]) for row in rows} == {(1.15, 7)}
    told_none = ("edit", "interpolate", guided_run, "--seeds", "4,6", "-n", 2, *common[2:], tmp_path / "told none")
    assert snowmelt(*told_none).code == 0
    rows = [json.loads(line) for line in (tmp_path / "told none" / "samples.jsonl").read_text().splitlines()]
    assert {(row["guidance"], row["class_guidance"], row["evaluations"]) for row in rows} == {(2, 1, 5)}


def test_asking_for_no_guidance_or_another_leaves_it_out(guided_run):
    model = api.load(guided_run)
    plain = api.plan_sampling(model, steps=4, guidance=1)
    assert (plain.away, plain.evaluations) == (None, 4)
    assert api.plan_sampling(model, steps=4, guidance=2).away == "class"
    other = api.plan_sampling(model, steps=4, guide=model)
    assert (other.away, other.guidance) == ("guide", 2.0)
    assert isinstance(other.denoiser.denoiser, AutoGuided)


def test_evaluations_are_counted_where_guidance_acts(guided_run):
    model = api.load(guided_run)
    called = []
    for network in (model.denoiser.network, model.guide.network):
        network.register_forward_hook(lambda network, given, out: called.extend(out))
    plan = api.plan_sampling(model, steps=5, interval=Interval(0.1, 3.0))
    next(plan.batches([0], ask_of(model), 1))
    assert 5 < plan.evaluations == len(called) < 15


def ask_of(model):
    from snowmelt.model.asked import ask

    return ask(model.images, [0])


def test_a_damaged_guide_is_refused(guided_run):
    file = guided_run / "model" / "guide.safetensors"
    bytes_ = bytearray(file.read_bytes())
    bytes_[-1] ^= 1
    file.write_bytes(bytes_)
    with pytest.raises(SnowmeltError, match=r"guide\.safetensors"):
        api.load(guided_run)


def test_the_record_says_what_led(snowmelt, guided_run, tmp_path):
    answer = snowmelt("sample", guided_run, "-n", 2, "--steps", 3, "--out", tmp_path / "out")
    assert answer.code == 0
    assert "2 images, 7 evaluations each" in answer.out
    row = json.loads((tmp_path / "out" / "samples.jsonl").read_text().splitlines()[0])
    assert (row["guidance"], row["class_guidance"], row["away_from"], row["evaluations"]) == (2.0, 1.15, "own", 7)
    plain = api.sample(api.load(guided_run), 2, steps=3, guidance=1)
    assert not np.array_equal(plain, api.sample(api.load(guided_run), 2, steps=3))


def test_another_sampler_than_the_models_own_takes_enough_steps(guided_run):
    model = api.load(guided_run)
    assert api.plan_sampling(model, guidance=1).evaluations == model.sampler.steps == 10
    assert api.plan_sampling(model, sampler="ddim", guidance=1).evaluations == 20
    slow = replace(model, sampler=replace(model.sampler, name="ddpm", steps=1000))
    assert api.plan_sampling(slow, sampler="ddim", guidance=1).evaluations == 50
