import pytest

import snowmelt


def test_an_unknown_argument_of_train_gets_the_nearest_one():
    with pytest.raises(snowmelt.SnowmeltError, match=r"'minuts'.*Did you mean 'minutes'"):
        snowmelt.train("digits", minuts=1)


def test_train_takes_what_is_said_about_data_beside_the_rest(grey_file, minimal, tmp_path):
    run = snowmelt.train(grey_file, out=tmp_path / "run", preset=minimal, steps=1, size=6, holdout=0.0)
    model = snowmelt.load(run)
    assert tuple(snowmelt.sample(model, 2).shape[2:]) == (6, 6)


def test_a_published_system_without_classes_ignores_them_unless_told(shoes, tmp_path):
    def classes(**wishes):
        found = []
        snowmelt.train(
            shoes, out=tmp_path / "x", steps=1, size=8, dry_run=lambda trainer: found.append(trainer.data), **wishes
        )
        return found[0].class_names

    assert classes(preset="ddpm-cifar10") is None
    assert classes(preset="ddpm-cifar10", labels="folder") == ("Boot", "Sneaker")
    assert classes(preset="tiny") == ("Boot", "Sneaker")
