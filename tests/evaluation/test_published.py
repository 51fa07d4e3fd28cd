"""Inception and DINOv2, of random weights: the same features as the libraries that published numbers come from.

Needs the extra [fid], which is not among what the suite installs: pip install -e '.[fid]'
"""

import pytest
import torch

from snowmelt.base.errors import SnowmeltError
from snowmelt.evaluation.features.published import of_weights

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip("torch_fidelity")


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (3, 3, 20, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def inception_file(library, tmp_path_factory):
    """Random weights under the names of the published ones."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    from torch_fidelity import feature_extractor_inceptionv3 as module

    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: None)
        patch.setattr(torch.nn.Module, "load_state_dict", lambda self, weights: None)
        network = library.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    weights = network.state_dict()
    for name, value in weights.items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
    torch.save(weights, path)
    return path


def test_inception_has_the_features_of_torch_fidelity(library, inception_file, images):
    extractor = of_weights(inception_file, CPU)
    theirs = library.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(inception_file))
    found = extractor.features(iter([images]))
    assert (extractor.name, extractor.dimensions, found.shape) == ("inception", 2048, (3, 2048))
    assert found.std() > 0
    torch.testing.assert_close(found, theirs(images)[0], rtol=1e-5, atol=1e-6)
    grey = images[:, :1]
    torch.testing.assert_close(
        extractor.features(iter([grey])), theirs(grey.repeat(1, 3, 1, 1))[0], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(SnowmeltError, match="5 channels"):
        extractor.features(iter([images[:, [0, 1, 2, 0, 1]]]))


def test_incomplete_weights_are_refused(inception_file, tmp_path):
    weights = torch.load(inception_file, weights_only=True)
    del weights["fc.weight"]
    torch.save(weights, tmp_path / "part.pth")
    with pytest.raises(SnowmeltError, match=r"part\.pth: the weights do not fit"):
        of_weights(tmp_path / "part.pth", CPU)


def test_dinov2_sees_what_its_network_sees_of_the_resized_picture(library, images, tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=0, img_size=224).eval()
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.05)
    weights = {**network.state_dict(), "mask_token": torch.zeros(1, 384)}
    torch.save(weights, tmp_path / "dino.pth")
    extractor = of_weights(tmp_path / "dino.pth", CPU)
    assert (extractor.name, extractor.dimensions) == ("dinov2", 384)
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as resized

    x = resized(images.float(), size=(224, 224), align_corners=False) / 255
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = network((x - mean) / std)
    torch.testing.assert_close(extractor.features(iter([images])), expected, rtol=1e-4, atol=1e-4)


def test_the_published_positions_of_dinov2_are_interpolated(library, images, tmp_path):
    """The release is of 37 x 37 patches; at 224 pixels there are 16 x 16."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=0, img_size=518)
    weights = network.state_dict()
    ramp = torch.linspace(0, 1, 37)[:, None].expand(37, 37).reshape(1, 37 * 37, 1).expand(-1, -1, 384)
    weights["pos_embed"] = torch.cat([torch.full((1, 1, 384), 7.0), ramp], dim=1)
    torch.save(weights, tmp_path / "dino.pth")
    positions = of_weights(tmp_path / "dino.pth", CPU)
    assert positions.features(iter([images])).shape == (3, 384)
    from snowmelt.evaluation.features.published import _positions

    found = _positions(weights["pos_embed"])
    assert found.shape == (1, 257, 384)
    assert (found[:, 0] == 7).all()
    square = found[0, 1:, 0].view(16, 16)
    assert (square.diff(dim=0) > 0).all()
    assert square[8].std() < 1e-5
