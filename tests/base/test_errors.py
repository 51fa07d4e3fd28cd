from snowmelt.base.errors import SnowmeltError, unknown_name


def test_unknown_name_shows_the_nearest_and_then_every_choice():
    error = unknown_name("schedule", "cosin", ["linear", "cosine"])
    assert str(error) == "Unknown schedule 'cosin'. Did you mean 'cosine'?\n  Choices: cosine, linear"


def test_the_nearest_is_found_whatever_the_case_and_shown_as_it_is_spelt():
    assert "Did you mean 'CIFAR10'?" in str(unknown_name("preset", "cifar", ["CIFAR10", "digits"]))


def test_nothing_is_guessed_where_nothing_is_near():
    assert "Did you mean" not in str(unknown_name("schedule", "zzz", ["linear", "cosine"]))


def test_a_long_list_is_cut():
    message = str(unknown_name("class", "x", [f"n{i:03}" for i in range(1000)]))
    assert message.endswith("n049, ... (1000 in all)")


def test_the_hint_stands_on_its_own_line():
    assert str(SnowmeltError("What.", "Do this.")) == "What.\n  Do this."
    assert str(SnowmeltError("What.")) == "What."
