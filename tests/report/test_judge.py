"""What nearest neighbours say about images."""

import pytest
import torch

from snowmelt.report.judge import judge

TRAINING = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0]]).view(3, 1, 1, 2)
LABELS = torch.tensor([0, 1, 2])


def test_copies_and_neighbours_are_told_apart():
    images = torch.stack([TRAINING[0], TRAINING[1] - 0.5, TRAINING[2] + 0.003])
    found = judge(images, torch.tensor([0, 1, 1]), TRAINING, LABELS)
    assert found.agreement == pytest.approx(2 / 3)
    assert found.copies == pytest.approx(2 / 3)  # 0.003 is less than half a grey value
    assert found.distance == pytest.approx((0 + 0.5 + 0.003) / 3, rel=1e-4)


def test_without_classes_nothing_is_said_about_them():
    assert judge(TRAINING, None, TRAINING, LABELS).agreement is None
    assert judge(TRAINING, LABELS, TRAINING, None).agreement is None


def test_many_images_are_judged_in_parts():
    images = TRAINING.repeat(1000, 1, 1, 1)
    found = judge(images, LABELS.repeat(1000), TRAINING, LABELS)
    assert (found.agreement, found.copies) == (1, 1)
