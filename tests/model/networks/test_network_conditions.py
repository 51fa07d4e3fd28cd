"""Conditions mean the same to both kinds of network."""

import dataclasses

import pytest
import torch

from snowmelt.model.condition import Condition
from snowmelt.model.networks import TransformerConfig, UNetConfig, build, prepare

CONDITIONS = {"num_classes": 3, "value_dim": 2, "augment_dim": 4, "image_channels": 1}
PLAIN = {
    "unet": UNetConfig(channels=8, multipliers=(1, 2), blocks=1),
    "unet-edm": UNetConfig(channels=8, multipliers=(1, 2), blocks=1, condition_first=True),
    "transformer": TransformerConfig(width=16, depth=2, heads=2),
}
X, TIMES = torch.randn(3, 3, 8, 8), torch.tensor([1.0, 30.0, 700.0])
FULL = {
    "label": torch.tensor([0, 2, 1]),
    "values": torch.tensor([[0.5, -1.0], [0.0, 0.0], [2.0, 1.0]]),
    "augmentation": torch.tensor([[1.0, 0.0, 0.0, 0.5], [0.0] * 4, [0.0, 1.0, -1.0, 0.0]]),
    "image": torch.linspace(-1, 1, 3 * 64).reshape(3, 1, 8, 8),
}


@pytest.fixture(params=PLAIN.values(), ids=PLAIN.keys())
def plain(request):
    return request.param


@pytest.fixture
def net(plain, stirred):
    return prepare(stirred(build(dataclasses.replace(plain, **CONDITIONS))), torch.device("cpu"))


def differs(a, b):
    return ((a - b).flatten(1).abs().amax(1) > 1e-4).tolist()


@pytest.mark.parametrize("name", FULL)
def test_each_condition_matters(net, name):
    cond = Condition(**FULL)
    changed = dataclasses.replace(cond, **{name: FULL[name].roll(1, 0)})
    assert differs(net(X, TIMES, cond), net(X, TIMES, changed)) == [True] * 3


@pytest.mark.parametrize("name", ["label", "values", "image"])
def test_null_withholds_per_sample(net, name):
    given = {name: FULL[name]}
    null = torch.tensor([False, True, False])
    told, partly, untold = (
        net(X, TIMES, Condition(**given)),
        net(X, TIMES, Condition(**given, null=null)),
        net(X, TIMES, Condition()),
    )
    assert differs(told, partly) == [False, True, False]
    assert differs(untold, partly) == [True, False, True]


def test_no_condition_is_the_null_condition(net):
    cond = Condition(**FULL)
    withheld = dataclasses.replace(cond.withheld(3, X.device), augmentation=None)
    torch.testing.assert_close(net(X, TIMES, None), net(X, TIMES, withheld))


def test_null_differs_from_every_class(net):
    untold = net(X, TIMES, None)
    for label in range(3):
        assert differs(untold, net(X, TIMES, Condition(label=torch.full((3,), label)))) == [True] * 3


def test_missing_augmentation_is_none_and_null_leaves_it(net):
    nothing = Condition(augmentation=torch.zeros(3, 4))
    torch.testing.assert_close(net(X, TIMES, nothing), net(X, TIMES, None))
    cond = Condition(augmentation=FULL["augmentation"])
    torch.testing.assert_close(net(X, TIMES, cond.withheld(3, X.device)), net(X, TIMES, cond))


def test_withheld_image_may_hold_anything(net):
    image = torch.full((3, 1, 8, 8), float("nan"))
    torch.testing.assert_close(
        net(X, TIMES, Condition(image=image, null=torch.ones(3, dtype=torch.bool))), net(X, TIMES, None)
    )


@pytest.mark.parametrize("name", FULL)
def test_condition_the_network_was_not_built_for_is_refused(plain, name):
    with pytest.raises(ValueError, match=f"without {name}"):
        build(plain)(X, TIMES, Condition(**{name: FULL[name]}))


def test_null_alone_is_fine_for_a_network_without_conditions(plain, stirred):
    net = stirred(build(plain))
    torch.testing.assert_close(net(X, TIMES, Condition().withheld(3, X.device)), net(X, TIMES))


@pytest.mark.parametrize("name", FULL)
def test_condition_of_the_wrong_shape_is_refused(net, name):
    with pytest.raises(ValueError, match=f"{name} must have shape"):
        net(X, TIMES, Condition(**{name: FULL[name][:2]}))


def test_null_of_the_wrong_shape_is_refused(net):
    with pytest.raises(ValueError, match="null must have shape"):
        net(X, TIMES, Condition(null=torch.ones(2, dtype=torch.bool)))


@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (3, 8, 8)])
def test_input_of_the_wrong_shape_is_refused(net, shape):
    with pytest.raises(ValueError, match="takes"):
        net(torch.randn(shape), TIMES)


def test_vectors_join_before_or_after_the_mlp():
    first, after = (
        build(dataclasses.replace(PLAIN[name], num_classes=3)).embedding.conditions.label.weight.shape
        for name in ("unet-edm", "unet")
    )
    assert (first, after) == ((4, 8), (4, 32))
