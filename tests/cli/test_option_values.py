"""How values are written on the command line."""

import pytest

from snowmelt.base.errors import SnowmeltError
from snowmelt.cli.values import parse_images, parse_options, parse_seeds, parse_size


@pytest.mark.parametrize(("text", "size"), [("64", (64, 64)), ("64x96", (64, 96)), ("33X1", (33, 1)), (None, None)])
def test_a_size_is_one_number_or_height_by_width(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["0", "64x", "x", "-4", "4097", "6.5", "1x2x3", ""])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(SnowmeltError, match=r"64x96 \(height x width\)"):
        parse_size(text)


def test_images_may_be_counted_in_millions():
    assert parse_images("2M") == 2_000_000
    assert parse_images(None) is None
    with pytest.raises(SnowmeltError, match="--images"):
        parse_images("two")


def test_seeds_are_ranges_and_numbers():
    assert parse_seeds("0-3,100, 7", 0, 64) == [0, 1, 2, 3, 100, 7]
    assert list(parse_seeds(None, 5, 3)) == [5, 6, 7]


@pytest.mark.parametrize("text", ["", "3-1", "a", "1,,2", "-4", "1-", str(2**63), "0-99999999999"])
def test_what_are_no_seeds_is_refused(text):
    with pytest.raises(SnowmeltError, match="--seeds"):
        parse_seeds(text, 0, 1)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(SnowmeltError, match="--seed"):
        parse_seeds(None, seed, 1)


def test_options_are_json_values_or_words():
    pairs = ["eta=1", "variance=small", "rho=7.5", "deep=true", "a==b"]
    assert parse_options(pairs) == {"eta": 1, "variance": "small", "rho": 7.5, "deep": True, "a": "=b"}


@pytest.mark.parametrize("pair", ["eta", "=1", "eta=", ""])
def test_an_option_without_name_or_value_is_refused(pair):
    with pytest.raises(SnowmeltError, match="name=value"):
        parse_options([pair])


def test_the_largest_seed_is_one_and_the_next_is_told_by_how_much(tmp_path):
    assert parse_seeds(None, 2**63 - 1, 1) == range(2**63 - 1, 2**63)
    with pytest.raises(SnowmeltError, match=f"Expected 0 to {2**63 - 64}, for 64 images"):
        parse_seeds(None, 2**63 - 63, 64)
