"""The batch of step n is a pure function of (seed, n)."""

from dataclasses import fields, replace
from itertools import pairwise

import pytest
import torch

from snowmelt.training import augment, randomness
from snowmelt.training.batches import Batch
from snowmelt.training.distributed import World


def joined(parts):
    """Several shares as one batch."""
    tensors = [torch.cat([getattr(part, f.name) for part in parts]) for f in fields(Batch) if f.name != "cond"]
    told = [torch.cat([getattr(part.cond, name) for part in parts]) for name in ("label", "null", "augmentation")]
    return [*tensors, *told]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(joined(a), joined(b), strict=True))


EVERYTHING = {"batch": 12, "flip": True, "augment": 0.4, "label_dropout": 0.5}


@pytest.fixture
def trainable(setup):
    """Flips, augmentation, withheld labels and everything else that is drawn."""
    return setup(**EVERYTHING, seed=3)


def test_a_step_is_drawn_alike_whatever_was_drawn_before(trainable):
    one, other = trainable.batches(), trainable.batches()
    for step in range(5):
        one.draw(step)
    assert same([one.draw(7)], [other.draw(7)])


def test_the_shares_of_all_ranks_are_the_batch_of_a_single_process(trainable):
    whole = trainable.batches().draw(2)
    for size in (2, 3, 4):
        assert same([whole], [trainable.batches(World(rank, size)).draw(2) for rank in range(size)])


def test_micro_batches_are_the_batch(trainable):
    whole = trainable.batches().draw(2)
    for size in (1, 5, 12, 100):
        assert same([whole], list(whole.split(size)))


def test_steps_and_seeds_differ_in_everything(trainable, setup):
    names = [f.name for f in fields(Batch) if f.name != "cond"] + ["label", "null", "augmentation"]
    first = joined([trainable.batches().draw(0)])
    for other in (trainable.batches().draw(1), setup(**EVERYTHING, seed=4).batches().draw(0)):
        differ = [name for name, a, b in zip(names, first, joined([other]), strict=True) if not torch.equal(a, b)]
        assert {"x_0", "noise", "log_snr", "label", "null", "augmentation"} <= set(differ)


def test_every_image_is_seen_once_an_epoch(setup):
    trainable = setup(batch=4, flip=False)
    count = len(trainable.data.training.images)
    assert count % 4 == 0
    seen = torch.cat([trainable.batches().draw(step).x_0 for step in range(count // 4)])
    assert len(seen.unique(dim=0)) == count


def test_a_flip_mirrors_about_half_of_the_images(setup):
    plain, flipped = (setup(batch=100, flip=flip).batches().draw(0).x_0 for flip in (False, True))
    changed = [not torch.equal(a, b) for a, b in zip(plain, flipped, strict=True)]
    mirrored = [torch.equal(a.flip(-1), b) for a, b in zip(plain, flipped, strict=True)]
    assert changed == mirrored
    assert 30 < sum(changed) < 70


def test_images_are_augmented_as_the_network_is_told(setup):
    plain = setup(batch=40, flip=False).batches().draw(3)
    done = setup(batch=40, flip=False, augment=0.3).batches().draw(3)
    told = done.cond.augmentation
    assert torch.equal(told, augment.draw(0, 3, 40, 0.3))
    assert torch.equal(done.x_0, augment.apply(plain.x_0, told))
    nothing = (told == 0).all(1)
    assert 0 < nothing.sum() < 40
    assert torch.equal(done.x_0[nothing], plain.x_0[nothing])
    assert torch.equal(done.noise, plain.noise)


def test_without_augmentation_the_network_is_told_nothing_not_even_of_flips(setup):
    assert setup(flip=True, augment=0.0).batches().draw(0).cond.augmentation is None


def test_with_augmentation_the_network_is_told_of_flips_too(setup):
    flipped = setup(batch=200, flip=True).batches().draw(1).x_0
    plain = setup(batch=200, flip=False).batches().draw(1).x_0
    told = setup(batch=200, flip=True, augment=1e-9).batches().draw(1)
    assert torch.equal(told.x_0, flipped)
    mirrored = told.cond.augmentation[:, 0] == 1
    assert torch.equal(mirrored, (flipped != plain).flatten(1).any(1))
    assert not told.cond.augmentation[:, 1:].any()


def test_images_without_classes_are_augmented_and_told(setup):
    made = setup(augment=0.5)
    unlabelled = replace(
        made, data=replace(made.data, training=replace(made.data.training, labels=None), class_names=None)
    )
    cond = unlabelled.batches().draw(0).cond
    assert cond.label is None
    assert cond.augmentation.shape == (made.config.batch, 9)


def test_labels_are_withheld_as_often_as_asked(setup):
    null = setup(batch=2000, label_dropout=0.2).batches().draw(0).cond.null
    assert 0.16 < null.double().mean() < 0.24


@pytest.mark.parametrize("wishes", [{}, {"predict": "eps"}, {"predict": "flow"}])
def test_quarters_run_from_the_cleanest_to_the_noisiest(setup, wishes):
    batch = setup(batch=400, **wishes).batches().draw(0)
    assert batch.quarter.unique().tolist() == [0, 1, 2, 3]
    groups = [batch.log_snr[batch.quarter == quarter] for quarter in range(4)]
    for cleaner, noisier in pairwise(groups):
        assert cleaner.min() >= noisier.max()


def test_the_held_out_batch_never_changes_and_is_not_trained_on(trainable):
    one, other = trainable.batches().held_out(3), trainable.batches().held_out(3)
    assert torch.equal(one.x_0, other.x_0)
    assert torch.equal(one.noise, other.noise)
    assert torch.equal(one.log_snr, other.log_snr)
    assert one.cond.null is None
    assert one.cond.augmentation is None  # nothing is done to it, and the network is told nothing
    every = torch.cat([trainable.batches().draw(step).x_0 for step in range(4)])
    assert not any(torch.equal(a, b) or torch.equal(a, b.flip(-1)) for a in one.x_0 for b in every)


def test_uniform_numbers_are_uniform_and_their_streams_and_steps_unrelated(ks):
    a, b, c = (randomness.uniform(1, stream, step, 5000) for stream, step in ((0, 0), (1, 0), (0, 1)))
    for numbers in (a, b, c):
        assert ks(numbers, lambda x: x) < 1
    for other in (b, c):
        assert abs(float(torch.corrcoef(torch.stack([a, other]))[0, 1])) < 0.05


def test_normal_numbers_are_normal(ks):
    numbers = randomness.normal(1, randomness.NOISE, 0, (5000,), torch.device("cpu"))
    assert numbers.dtype == torch.float32
    assert ks(numbers, torch.special.ndtr) < 1


def test_the_numbers_of_a_seed_stay_the_same_from_release_to_release():
    assert randomness.derived_seed(0, 2, 7) == 7_479_431_259_651_825_199
    numbers = [number.hex() for number in randomness.uniform(5, 0, 9, 2).tolist()]
    assert numbers == ["0x1.901f795090f2cp-2", "0x1.f35faefa785a1p-1"]


def test_what_an_image_is_made_from_is_mirrored_and_turned_with_it(setup, shoes):
    from snowmelt.data.pipeline import load_data

    made = setup(batch=64, flip=True, augment=0.5)
    twin = load_data(shoes, holdout=0.2, cond_image=str(shoes))
    batch = replace(made, data=twin).batches().draw(3)
    assert torch.equal(batch.x_0, batch.cond.image)
    plain = replace(setup(batch=64, flip=False, augment=0), data=twin).batches().draw(3)
    assert sum(not torch.equal(a, b) for a, b in zip(batch.x_0, plain.x_0, strict=True)) > 20


def test_ranks_that_change_on_the_way_see_the_same_images_in_the_same_order(setup):
    made = setup(batch=12, flip=True, label_dropout=0.5, augment=0.3)
    alone = [made.batches().draw(step) for step in range(6)]
    changing = []
    for step, size in enumerate((1, 2, 3, 3, 2, 1)):  # a run that is resumed on another number of processes each time
        changing.append([made.batches(World(rank, size)).draw(step) for rank in range(size)])
    for one, parts in zip(alone, changing, strict=True):
        assert same([one], parts)
