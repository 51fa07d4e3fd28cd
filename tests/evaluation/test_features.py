"""The networks that look at pictures: which one is taken, that it is frozen and sees what a person sees, and what a
missing or damaged one says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from snowmelt.base.errors import SnowmeltError
from snowmelt.data.cache import Cache
from snowmelt.data.images import Stored
from snowmelt.data.pipeline import load_data
from snowmelt.evaluation.features import fitted, published
from snowmelt.evaluation.features.choice import Wanted, choose, features_of_real
from snowmelt.evaluation.features.network import FeatureNetwork, seeded
from snowmelt.evaluation.features.small import SHIPPED, load_network, save_network
from snowmelt.evaluation.frechet import frechet_distance, moments
from snowmelt.evaluation.pictures import Pictures
from snowmelt.image.codec import UINT8, ValueRange

CPU = torch.device("cpu")


def pictures(pixels, value_range=UINT8):
    return Pictures(Stored(pixels, torch.arange(len(pixels))), value_range, None, None, str, {"data": "some"})


def wanted(pixels, tell=lambda _: None):
    return Wanted(pictures(pixels), CPU, tell)


@pytest.fixture(scope="module")
def digits():
    """1,700 digits, 8x8."""
    return load_data("digits").training


@pytest.fixture(scope="module")
def large_digits(digits):
    """Three hundred of them at 28x28."""
    x = F.interpolate(digits.images[:300].float(), size=(28, 28), mode="bicubic").clamp(0, 255)
    return x.round().byte()


@pytest.fixture
def quick(monkeypatch):
    """Networks that are fitted in a moment."""
    monkeypatch.setattr(fitted, "STEPS", 12)
    monkeypatch.setattr(fitted, "PAIRS", 32)


def test_grey_28x28_is_looked_at_by_the_shipped_classifier(large_digits):
    extractor, why = choose("auto", wanted(large_digits))
    assert (extractor.name, extractor.dimensions, extractor.resize) == ("grey28", 128, "none")
    assert "shipped" in why
    assert SHIPPED.stat().st_size < 400_000
    found = extractor.features(iter(large_digits.split(100)))
    assert found.shape == (300, 128)
    torch.testing.assert_close(extractor.features(iter(large_digits.split(7))), found, rtol=1e-4, atol=1e-5)


def test_more_noise_more_blur_and_fewer_kinds_are_further_away(large_digits, digits):
    extractor, _ = choose("grey28", wanted(large_digits))
    torch.manual_seed(0)

    def distance(pixels):
        return frechet_distance(reference, moments(extractor.features(iter([pixels]))))

    reference = moments(extractor.features(iter([large_digits])))
    noise = [distance((large_digits + s * torch.randn(large_digits.shape)).clamp(0, 255).byte()) for s in (5, 20, 60)]
    blurred = F.avg_pool2d(large_digits.float(), 3, 1, 1)
    blur = [distance((large_digits * (1 - k) + k * blurred).byte()) for k in (0.2, 0.5, 1.0)]
    kinds = [distance(large_digits[digits.labels[:300] >= k]) for k in (1, 4, 8)]
    for found in (noise, blur, kinds):
        assert 0 < found[0] < found[1] < found[2]


def test_others_are_looked_at_by_a_network_fitted_to_them(digits, quick, tmp_path, monkeypatch):
    monkeypatch.setenv("SNOWMELT_CACHE", str(tmp_path))
    state = torch.get_rng_state()
    heard = []
    first, why = choose("auto", wanted(digits.images[:200], heard.append))
    assert torch.get_rng_state().equal(state)
    assert first.name == "fitted"
    assert "no published numbers" in why
    assert "200 images" in first.remark
    assert any("Fitting" in line for line in heard)
    heard.clear()
    again, _ = choose("fitted", wanted(digits.images[:200], heard.append))
    assert again.digest == first.digest
    assert not heard  # it is kept
    (kept,) = (tmp_path / "features").glob("fitted-*.safetensors")
    assert choose(str(kept), wanted(digits.images[200:300]))[0].digest == first.digest
    kept.unlink()
    assert choose("fitted", wanted(digits.images[:200]))[0].digest == first.digest  # made anew, the same
    assert choose("fitted", wanted(digits.images[200:400]))[0].digest != first.digest


def test_fitting_brings_cut_outs_of_one_picture_together(digits, monkeypatch):
    monkeypatch.setattr(fitted, "PAIRS", 64)
    generator = torch.Generator().manual_seed(5)
    x = fitted.eight_bits(digits.images[:64])
    both = torch.cat([fitted.cut_out(x, generator), fitted.cut_out(x, generator)])

    def found(steps):
        monkeypatch.setattr(fitted, "STEPS", steps)
        network = fitted.fit(lambda places: digits.images[places], 500, lambda done, total: None)
        features = F.normalize(network(both))
        likeness = (features @ features.T).fill_diagonal_(-1)
        return float((likeness.argmax(1) == torch.arange(128).roll(64)).double().mean())

    assert found(60) > found(1) + 0.12


@pytest.mark.slow
def test_fitted_features_know_the_digits_apart_without_having_been_told(digits):
    network = fitted.fit(lambda places: digits.images[places], len(digits.images), lambda done, total: None)
    found = network(fitted.eight_bits(digits.images[:]))
    distances = torch.cdist(found, found).fill_diagonal_(torch.inf)
    assert float((digits.labels[distances.argmin(1)] == digits.labels).double().mean()) > 0.97


def test_the_loss_of_a_pair_of_pairs_by_hand():
    projected = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 1.0]])  # 0 and 2 are one picture, 1 and 3
    own, other = 1 / fitted.TEMPERATURE, 0.0
    expected = -own + np.log(np.exp(own) + 2 * np.exp(other))
    assert float(fitted.same_picture_loss(projected)) == pytest.approx(expected, rel=1e-6)


def test_a_cut_out_of_the_whole_is_the_picture_itself(monkeypatch):
    x = torch.rand(3, 2, 9, 7)
    monkeypatch.setattr(fitted, "SMALLEST", 1.0)
    monkeypatch.setattr(fitted, "BRIGHTNESS", 0.0)
    torch.testing.assert_close(fitted.cut_out(x, torch.Generator()), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 3), (3, 8, 8), (5, 17, 9), (3, 41, 64)])
def test_any_size_and_any_channels_have_features(shape):
    found = seeded(0, *shape).eval()(torch.zeros(2, *shape))
    assert found.shape == (2, 128)


def test_deep_pictures_are_compared_as_eight_bits():
    deep = torch.tensor([[[[0, 257, 65535]]]]).to(torch.uint16)
    assert pictures(deep, ValueRange("uint16", 0, 65535)).take(torch.tensor([0])).tolist() == [[[[0, 1, 255]]]]


def test_real_features_are_kept_by_content_and_damage_is_mended_and_said(large_digits, tmp_path):
    cache, heard = Cache(tmp_path, 10**9), []
    real = pictures(large_digits[:50])
    extractor, _ = choose("grey28", wanted(large_digits))
    first = features_of_real(real, extractor, cache, heard.append)
    assert "Features of 50 real images" in heard[0]
    heard.clear()
    assert features_of_real(real, extractor, cache, heard.append).equal(first)
    assert not heard
    features_of_real(pictures(large_digits[50:100]), extractor, cache, heard.append)
    assert heard  # others are not taken for them
    heard.clear()
    features_of_real(real, replace(extractor, digest="0" * 64), cache, heard.append)
    assert heard  # nor those of another network
    kept = sorted((tmp_path / "memos").glob("features-*.npz"), key=lambda path: path.stat().st_mtime)[0]
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 0xFF
    kept.write_bytes(content)
    heard.clear()
    assert features_of_real(real, extractor, cache, heard.append).equal(first)
    assert any("damaged" in line and kept.name in line for line in heard)
    heard.clear()
    assert features_of_real(real, extractor, cache, heard.append).equal(first)
    assert not heard


def test_a_network_of_other_weights_is_another_network(tmp_path):
    about = {"name": "mine", "remark": "none", "channels": 1, "height": 8, "width": 8}
    for seed in (0, 1):
        save_network(seeded(seed, 1, 8, 8), tmp_path / f"{seed}.safetensors", about)
    one, other = (load_network(tmp_path / f"{seed}.safetensors", CPU) for seed in (0, 1))
    assert one.name == "mine"
    assert one.digest != other.digest
    x = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    kept = seeded(0, 1, 8, 8).eval()(fitted.eight_bits(x))
    torch.testing.assert_close(one.features(iter([x])), kept, rtol=5e-3, atol=5e-3)  # half precision
    assert isinstance(seeded(0, 1, 8, 8), FeatureNetwork)
    with pytest.raises(SnowmeltError, match=r"for pictures of 1x8x8 .* not 3x8x8"):
        one.features(iter([x.expand(4, 3, 8, 8)]))


def test_what_is_no_network_is_refused_by_name(tmp_path, large_digits):
    need = wanted(large_digits[:, :, :8, :8])
    with pytest.raises(SnowmeltError, match="grey28 is for grey pictures of 28x28, not 1x8x8"):
        choose("grey28", need)
    with pytest.raises(SnowmeltError, match=r"'inceptoin'.*inception"):
        choose("inceptoin", need)
    with pytest.raises(SnowmeltError, match="no such file"):
        choose(str(tmp_path / "none.safetensors"), need)
    for name, content in (("a.safetensors", b"text"), ("b.pth", b"text"), ("c.pth", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SnowmeltError, match=name):
            choose(str(tmp_path / name), need)
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "d.pth")
    with pytest.raises(SnowmeltError, match="neither Inception-v3 nor DINOv2"):
        choose(str(tmp_path / "d.pth"), need)


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


def test_no_pickle_is_executed(tmp_path, large_digits):
    torch.save({"Mixed_7c.branch_pool.conv.weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(SnowmeltError, match=r"bomb\.pth: this file cannot be read as weights"):
        choose(str(tmp_path / "bomb.pth"), wanted(large_digits))


def test_a_library_that_is_not_installed_is_named_with_its_extra(large_digits, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch_fidelity", None)
    for name in ("inception", "dinov2"):
        with pytest.raises(SnowmeltError, match=r"pip install 'snowmelt\[fid\]'"):
            choose(name, wanted(large_digits))


def test_weights_that_cannot_be_fetched_are_named_with_address_hash_and_flag(large_digits, monkeypatch, tmp_path):
    monkeypatch.setenv("SNOWMELT_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(published, "extra_module", lambda *_: None)
    monkeypatch.setattr(published, "INCEPTION", published.Published("w.pth", "http://127.0.0.1:9/w.pth", "6726825d"))
    with pytest.raises(SnowmeltError) as caught:
        choose("inception", wanted(large_digits))
    for part in ("http://127.0.0.1:9/w.pth", "6726825d", "--features PATH"):
        assert part in str(caught.value)
    assert not list((tmp_path / "features").glob("w.pth*"))


def test_fetched_weights_of_another_hash_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SNOWMELT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "w.pth").write_bytes(b"something else")
    address = (tmp_path / "w.pth").as_uri()
    with pytest.raises(SnowmeltError, match="invalid hash"):
        published.Published("w.pth", address, "6726825d").path("inception")
    assert published.Published("w.pth", address, "").path("inception").read_bytes() == b"something else"


def test_broken_weights_are_said_to_be_broken(tmp_path, large_digits):
    about = {"name": "mine", "remark": "none", "channels": 1, "height": 28, "width": 28}
    network = seeded(0, 1, 28, 28)
    with torch.no_grad():
        network.layers[0].weight[0, 0, 0, 0] = torch.nan
    save_network(network, tmp_path / "a.safetensors", about)
    extractor, _ = choose(str(tmp_path / "a.safetensors"), wanted(large_digits))
    with pytest.raises(SnowmeltError, match="300 of 300 images are not finite"):
        extractor.features(iter([large_digits]))


def test_an_extractor_is_described_in_plain_values(large_digits):
    about = choose("grey28", wanted(large_digits))[0].to_json()
    assert json.loads(json.dumps(about)) == about
    assert len(about["sha256"]) == 64
    assert set(about) == {"name", "sha256", "dimensions", "resize", "remark"}


def test_a_network_with_one_flipped_byte_is_fitted_anew_and_it_is_said(digits, quick, tmp_path, monkeypatch):
    monkeypatch.setenv("SNOWMELT_CACHE", str(tmp_path))
    first, _ = choose("fitted", wanted(digits.images[:60]))
    (path,) = (tmp_path / "features").glob("fitted-*.safetensors")
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    said = []
    again, _ = choose("fitted", wanted(digits.images[:60], said.append))
    assert any("was damaged" in line for line in said)
    assert again.digest == first.digest


def test_a_network_that_cannot_be_kept_is_used_all_the_same(digits, quick, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SNOWMELT_CACHE", str(tmp_path / "file"))
    said = []
    extractor, _ = choose("fitted", wanted(digits.images[:60], said.append))
    assert extractor.features(iter([digits.images[:5]])).shape == (5, 128)
    assert any("cannot be kept" in line for line in said)


def test_large_pictures_are_reduced_before_a_network_is_fitted_to_them(quick, tmp_path, monkeypatch):
    monkeypatch.setenv("SNOWMELT_CACHE", str(tmp_path))
    large = torch.randint(0, 256, (40, 3, 100, 200), generator=torch.Generator().manual_seed(0)).byte()
    seen = []
    forward = FeatureNetwork.forward
    monkeypatch.setattr(FeatureNetwork, "forward", lambda self, x: seen.append(tuple(x.shape[2:])) or forward(self, x))
    extractor, _ = choose("fitted", wanted(large))
    assert extractor.features(iter([large[:5]])).shape == (5, 128)
    assert set(seen) == {(32, 64)}
    assert extractor.resize == "means of areas, to at most 64 pixels a side"
