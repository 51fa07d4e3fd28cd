import pytest
import torch

from snowmelt.model.condition import Condition, stack

CPU = torch.device("cpu")


def some(batch: int = 3) -> Condition:
    return Condition(
        label=torch.arange(batch),
        values=torch.arange(2.0 * batch).view(batch, 2),
        image=torch.arange(4.0 * batch).view(batch, 1, 2, 2),
        augmentation=torch.ones(batch, 9),
    )


def same(a: Condition, b: Condition) -> bool:
    def equal(x: torch.Tensor | None, y: torch.Tensor | None) -> bool:
        return (x is None and y is None) or (x is not None and y is not None and torch.equal(x, y))

    return all(equal(getattr(a, name), getattr(b, name)) for name in vars(a))


@pytest.mark.parametrize("index", [slice(1, 3), torch.tensor([2, 0]), torch.tensor([True, False, True])], ids=str)
def test_indexing_takes_the_same_samples_of_every_field(index):
    part = some()[index]
    for name in ("label", "values", "image", "augmentation"):
        assert torch.equal(getattr(part, name), getattr(some(), name)[index])
    assert part.null is None


def test_stacking_undoes_splitting():
    assert same(stack([some()[:1], some()[1:]], [1, 2], CPU), some())


def test_stacking_with_a_withheld_part_marks_only_that_part():
    both = stack([some(2), some(3).withheld(3, CPU)], [2, 3], CPU)
    assert both.null is not None
    assert both.null.tolist() == [False, False, True, True, True]


def test_stacking_nothing_stays_nothing():
    assert same(stack([Condition(), Condition()], [4, 4], CPU), Condition())


def test_stacking_different_fields_is_an_error():
    with pytest.raises(ValueError, match="no label"):
        stack([Condition(label=torch.zeros(1)), Condition()], [1, 1], CPU)


def test_withholding_keeps_the_fields_and_marks_every_sample():
    hidden = some().withheld(3, CPU)
    assert hidden.null is not None
    assert hidden.null.all()
    assert hidden.label is not None
    assert torch.equal(hidden.label, torch.arange(3))


def test_map_reaches_every_tensor_that_is_present():
    doubled = Condition(label=torch.ones(2), null=torch.zeros(2)).map(lambda tensor: tensor + 1)
    assert same(doubled, Condition(label=torch.full((2,), 2.0), null=torch.ones(2)))
    assert same(some().to(CPU), some())
