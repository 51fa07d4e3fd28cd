"""Colour profiles: what a picture means is kept, whatever numbers it is stored in."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from snowmelt.data.colour import in_srgb
from snowmelt.data.decode import read_image
from snowmelt.data.items import Target

# Chromaticities of Display P3 and of sRGB, adapted to D50 (the columns of an RGB profile), and a gamma of 2.2.
P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7142))


def rgb_profile(columns, gamma=2.2, name="made up"):
    """A small ICC profile, version 2: three columns and one curve (ICC.1:2001)."""

    def xyz(values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = name.encode() + b"\0"
    desc = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    parts = {
        b"desc": desc + bytes(-len(desc) % 4),
        b"wtpt": xyz((0.9642, 1.0, 0.8249)),
        b"rXYZ": xyz(columns[0]),
        b"gXYZ": xyz(columns[1]),
        b"bXYZ": xyz(columns[2]),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    offset, table, body = 128 + 4 + 12 * len(parts), b"", b""
    for tag, content in parts.items():
        table += tag + struct.pack(">II", offset + len(body), len(content))
        body += content
    size = offset + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(128 - 24 - 12 - 4)
    return (
        head[:128].ljust(128, b"\0")[:68]
        + struct.pack(">3i", 63190, 65536, 54061)
        + bytes(48)
        + struct.pack(">I", len(parts))
        + table
        + body
    )


def pixels(size=(6, 5)):
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


def expected(values, columns):
    """By hand: to linear light, to XYZ, to linear sRGB, to sRGB."""
    linear = (values / 255.0) ** 2.2
    light = linear @ np.array(columns) @ np.linalg.inv(np.array(SRGB))
    light = light.clip(0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return 255 * encoded


def test_wide_colours_become_those_of_srgb():
    values = pixels()
    image = Image.fromarray(values)
    image.info["icc_profile"] = rgb_profile(P3)
    result = np.asarray(in_srgb(image)).astype(float)
    assert np.abs(result - expected(values, P3)).max() < 3
    assert np.abs(result - values).max() > 20


def test_a_profile_of_srgb_is_known_by_what_it_does_and_not_by_its_name_alone():
    values = pixels()
    image = Image.fromarray(values)
    image.info["icc_profile"] = rgb_profile(SRGB, name="sRGB built-in")
    assert in_srgb(image) is image
    image.info["icc_profile"] = rgb_profile(SRGB, gamma=1.0, name="GIMP built-in Linear sRGB")
    light = values / 255
    wanted = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(np.asarray(in_srgb(image)) - wanted).max() < 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_file_s_profile_is_applied_when_it_is_read(kind):
    values = np.kron(pixels((2, 2)), np.ones((16, 16, 1), np.uint8))
    stream = io.BytesIO()
    options = {"quality": 100} if kind in ("JPEG", "WEBP") else {}
    Image.fromarray(values).save(stream, kind, icc_profile=rgb_profile(P3), **options)
    stream.seek(0)
    result = read_image(stream, Target("uint8", 3, 32, 32, "crop")).transpose(1, 2, 0).astype(float)
    inner = np.s_[4:12, 4:12]  # away from edges, which lossy formats smear
    assert np.abs(result[inner] - expected(values, P3)[inner]).mean() < 6
    assert np.abs(result[inner] - values[inner]).mean() > 6


def test_srgb_itself_and_no_profile_touch_nothing():
    image = Image.fromarray(pixels())
    assert in_srgb(image) is image
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert in_srgb(image) is image


@pytest.mark.parametrize("profile", [b"nonsense", rgb_profile(P3)[:150], bytes(5000)])
def test_a_broken_profile_leaves_the_picture_as_it_is(profile):
    image = Image.fromarray(pixels())
    image.info["icc_profile"] = profile
    assert np.array_equal(np.asarray(in_srgb(image)), pixels())


def test_alpha_and_palettes_are_kept():
    values = np.dstack([pixels(), np.full((6, 5), 77, np.uint8)])
    image = Image.fromarray(values)
    image.info["icc_profile"] = rgb_profile(P3)
    result = in_srgb(image)
    assert result.mode == "RGBA"
    assert np.asarray(result)[..., 3].tolist() == values[..., 3].tolist()
    assert np.abs(np.asarray(result)[..., :3].astype(float) - expected(values[..., :3], P3)).max() < 3
    palette = Image.fromarray(pixels()).quantize(16)
    palette.info["icc_profile"] = rgb_profile(P3)
    assert in_srgb(palette).mode == "RGB"


def test_a_profile_that_does_not_fit_the_picture_is_left_alone():
    grey = Image.fromarray(pixels()[..., 0])
    grey.info["icc_profile"] = rgb_profile(P3)
    assert np.array_equal(np.asarray(in_srgb(grey)), pixels()[..., 0])
