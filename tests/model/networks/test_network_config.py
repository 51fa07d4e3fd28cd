import json

import pytest

from snowmelt.base.errors import SnowmeltError
from snowmelt.model.networks import PRESETS, TransformerConfig, UNetConfig, config_from_dict, config_to_dict


@pytest.mark.parametrize("entry", list(PRESETS), ids=lambda entry: entry.name)
def test_round_trip_through_json(entry):
    config = entry.value(3, 6, 10)
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def test_missing_keys_take_their_defaults():
    assert config_from_dict({"kind": "unet"}) == UNetConfig()
    assert config_from_dict({"kind": "transformer", "width": 64, "heads": 4}) == TransformerConfig(width=64, heads=4)


@pytest.mark.parametrize("values", [{}, {"kind": 3}, {"kind": None}, {"channels": 64}])
def test_kind_is_required(values):
    with pytest.raises(SnowmeltError, match="kind"):
        config_from_dict(values)


def test_unknown_names_are_named():
    with pytest.raises(SnowmeltError, match=r"chanels.*channels"):
        config_from_dict({"kind": "unet", "chanels": 64})
    with pytest.raises(SnowmeltError, match="width"):
        config_from_dict({"kind": "unet", "width": 64})
    with pytest.raises(SnowmeltError, match=r"Unknown kind of network 'unett'.*'unet'"):
        config_from_dict({"kind": "unett"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("channels", "64"),
        ("channels", 64.0),
        ("channels", True),
        ("channels", None),
        ("channels", 0),
        ("channels", 10**9),
        ("in_channels", 0),
        ("out_channels", -3),
        ("num_classes", -1),
        ("num_classes", 10**9),
        ("value_dim", 10**9),
        ("augment_dim", -1),
        ("image_channels", 1.5),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", float("nan")),
        ("dropout", "0.1"),
        ("dropout", False),
        ("multipliers", []),
        ("multipliers", [1, 0]),
        ("multipliers", [1, "2"]),
        ("multipliers", 2),
        ("multipliers", [1] * 11),
        ("blocks", 0),
        ("blocks", 10**6),
        ("attention", [4]),
        ("attention", [-1]),
        ("attention", "1"),
        ("decoder_attention", "some"),
        ("middle_attention", 1),
        ("heads", 0),
        ("heads", 3),
        ("head_channels", 100),
        ("head_channels", 0),
        ("time", "ddim"),
        ("time_channels", 0),
        ("embedding_channels", 10**6),
        ("condition_first", "yes"),
        ("max_groups", 0),
        ("min_group_channels", 0),
        ("norm_eps", 0),
        ("scale_shift", None),
        ("skip_scale", 0.0),
        ("skip_scale", 1.5),
        ("resample", "bilinear"),
        ("resample_projection", 0),
        ("init", "orthogonal"),
        ("patch_size", 0),
        ("patch_size", 1000),
    ],
)
def test_wrong_settings_of_a_unet_are_named(key, value):
    with pytest.raises(SnowmeltError, match=key):
        config_from_dict({"kind": "unet", key: value})


def test_a_level_too_wide_is_named():
    with pytest.raises(SnowmeltError, match="level 1 would have"):
        UNetConfig(multipliers=(1, 1000), attention=())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("width", 10**9),
        ("width", 0),
        ("width", 386),
        ("heads", 5),
        ("depth", 0),
        ("depth", 10**6),
        ("patch_size", 0),
        ("mlp_ratio", 0),
        ("mlp_ratio", float("inf")),
        ("mlp_ratio", "4"),
    ],
)
def test_wrong_settings_of_a_transformer_are_named(key, value):
    with pytest.raises(SnowmeltError, match=key):
        config_from_dict({"kind": "transformer", key: value})


def test_a_whole_number_is_a_number():
    assert config_from_dict({"kind": "unet", "skip_scale": 1}).skip_scale == 1
