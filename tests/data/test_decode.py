import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.ImageFile import ImageFile

from snowmelt.data.decode import pillow_silenced, read_header, read_image
from snowmelt.data.items import Target

RANDOM = np.random.default_rng(0)


def stored(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def read(image, channels, size=None, fit="crop", dtype="uint8", kind="PNG", **options):
    height, width = size or image.size[::-1]
    file = stored(image, kind, **options) if isinstance(image, Image.Image) else image
    return read_image(file, Target(dtype, channels, height, width, fit))


def noise(channels, height=10, width=14, top=256, dtype=np.uint8):
    return RANDOM.integers(0, top, (height, width, channels), dtype).squeeze()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pixels_of_the_right_kind_are_untouched(channels):
    pixels = noise(channels)
    result = read(Image.fromarray(pixels), channels)
    assert result.dtype == np.uint8
    assert np.array_equal(result, pixels.reshape(10, 14, channels).transpose(2, 0, 1))


def test_sixteen_bits_are_untouched_rounded_or_repeated():
    pixels = noise(1, top=65536, dtype=np.uint16)
    image = Image.fromarray(pixels)
    assert np.array_equal(read(image, 1, dtype="uint16")[0], pixels)
    assert np.array_equal(read(image, 1)[0], np.rint(pixels / 257))
    assert np.array_equal(read(image, 3, dtype="uint16"), [pixels] * 3)
    assert (read(image, 4, dtype="uint16")[3] == 65535).all()
    assert (read(image, 2, dtype="uint16")[1] == 65535).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_eight_bits_among_sixteen_are_scaled_up(kind):
    pixels = noise(1)
    result = read(Image.fromarray(pixels), 1, dtype="uint16", kind=kind)
    assert result.dtype == np.uint16
    assert np.array_equal(result[0], pixels.astype(int) * 257)


def test_colour_becomes_grey_by_luma_and_grey_becomes_colour():
    pixels = noise(3)
    grey = read(Image.fromarray(pixels), 1)[0]
    assert abs(grey - pixels @ [0.299, 0.587, 0.114]).max() <= 0.51
    assert np.array_equal(read(Image.fromarray(pixels[..., 0]), 3), [pixels[..., 0]] * 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_put_on_white(mode):
    pixels = noise(len(mode))
    if mode == "LA":
        pixels = pixels.reshape(10, 14, 2)
    colour, alpha = pixels[..., :-1] / 255.0, pixels[..., -1:] / 255.0
    expected = (colour * alpha + 1 - alpha) * 255
    result = read(Image.fromarray(pixels), len(mode) - 1).transpose(1, 2, 0)
    assert abs(result - expected).max() <= 1.01


def test_a_transparent_colour_without_an_alpha_channel_is_put_on_white():
    grey = Image.fromarray(np.full((4, 4), 7, np.uint8))
    assert (read(grey, 1, transparency=7) == 255).all()
    assert (read(grey, 1, transparency=8) == 7).all()
    rgb = Image.fromarray(np.full((4, 4, 3), 7, np.uint8))
    assert (read(rgb, 3, transparency=(7, 7, 7)) == 255).all()
    assert read_header(stored(rgb, transparency=(7, 7, 7))).alpha


def test_palettes_cmyk_and_black_and_white():
    colours = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [9, 9, 9]]], np.uint8).repeat(4, 0).repeat(4, 1)
    rgb = Image.fromarray(colours)
    assert np.array_equal(read(rgb.convert("P", palette=Image.Palette.ADAPTIVE), 3), colours.transpose(2, 0, 1))
    assert np.array_equal(read(rgb.convert("CMYK"), 3, kind="TIFF"), colours.transpose(2, 0, 1))
    grey = read(rgb.convert("CMYK"), 1, kind="TIFF")
    assert np.array_equal(grey, read(rgb, 1))
    bits = Image.fromarray(np.eye(8, dtype=np.uint8) * 255).convert("1")
    assert np.array_equal(read(bits, 1)[0], np.eye(8) * 255)


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_exif_rotation_is_undone(mode, orientation, kind, options):
    if kind == "WEBP" and mode != "RGB":
        pytest.skip("WebP holds colour only")
    image = Image.fromarray(noise(3) if mode == "RGB" else noise(1, dtype=np.uint16 if mode == "I;16" else np.uint8))
    # How a camera held in each way would have stored the upright picture.
    held = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = stored(image.transpose(held[orientation]) if orientation > 1 else image, kind, exif=exif, **options)
    header = read_header(file)
    assert (header.height, header.width, header.turned) == (10, 14, orientation > 1)
    dtype = "uint16" if mode == "I;16" else "uint8"
    channels = 3 if mode == "RGB" else 1
    assert np.array_equal(read(file, channels, (10, 14), dtype=dtype), read(image, channels, dtype=dtype))


def test_a_broken_exif_block_is_no_reason_to_lose_a_picture():
    file = stored(Image.fromarray(noise(3)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffrubbish")
    with pillow_silenced():
        assert read_header(file).turned is False
        assert read(file, 3, (10, 14)).shape == (3, 10, 14)


def test_headers():
    header = read_header(stored(Image.fromarray(noise(3)), "JPEG"))
    assert (header.format, header.mode, header.height, header.width) == ("JPEG", "RGB", 10, 14)
    assert (header.channels, header.dtype, header.alpha, header.animated, header.reduced) == (3, "uint8", *[False] * 3)
    header = read_header(stored(Image.fromarray(noise(1, dtype=np.uint16))))
    assert (header.mode, header.channels, header.dtype) == ("16-bit grey", 1, "uint16")
    header = read_header(stored(Image.new("CMYK", (4, 4)), "JPEG"))
    assert (header.mode, header.channels) == ("CMYK", 3)
    assert read_header(stored(Image.fromarray(noise(4)))).alpha


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_the_first_of_several_frames_is_read(kind):
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    options = {"lossless": True} if kind == "WEBP" else {}
    file = stored(first, kind, save_all=True, append_images=[second], **options)
    assert read_header(file).animated
    assert read(file, 3, (8, 8))[:, 0, 0].tolist() == [255, 0, 0]


def test_sixteen_bit_colour_is_known_to_be_reduced():
    # Pillow cannot write it: one pixel by hand, 16-bit RGB.
    assert read_header(io.BytesIO(png(1, 1, depth=16, colour=2, data=b"\0" + bytes(6)))).reduced
    assert not read_header(io.BytesIO(png(1, 1, depth=8, colour=2, data=b"\0" + bytes(3)))).reduced


def png(width, height, depth, colour, data):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_the_three_fits(mode, dtype):
    # A wide picture: left third red, middle green, right blue.
    bands = np.zeros((30, 90, 3), np.uint8)
    for band in range(3):
        bands[:, 30 * band : 30 * band + 30, band] = 240
    image = Image.fromarray(bands).convert(mode)
    channels = len(mode)
    cropped = read(image, channels, (30, 30), "crop", dtype)
    assert np.array_equal(cropped, read(image.crop((30, 0, 60, 30)), channels, dtype=dtype))
    stretched = read(image, channels, (10, 10), "stretch", dtype).astype(float)
    assert stretched.shape == (channels, 10, 10)
    reference = read(image, channels, dtype=dtype).astype(float)
    assert np.allclose(stretched[:, 5, 1], reference[:, 15, 10], atol=3 * 257 if dtype == "uint16" else 3)
    padded = read(image, channels, (30, 30), "pad", dtype)
    assert (padded[:, :10] == 0).all()
    assert (padded[:, 20:] == 0).all()
    assert (padded[:, 10:20].reshape(channels, -1).max(1) > 0).all()


def test_shrinking_is_antialiased():
    board = Image.fromarray((np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8))
    for size in (100, 64, 32):
        assert abs(read(board, 1, (size, size)).astype(int) - 127.5).max() < 16


@pytest.mark.parametrize("size", [(64, 48), (300, 200)])
def test_a_large_jpeg_is_decoded_as_if_it_were_not_hurried(size):
    pixels = np.random.default_rng(0).integers(0, 256, (225, 300, 3), np.uint8)
    detail = Image.fromarray(pixels).resize((1200, 900), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    hurried = read(stored(detail, "JPEG", quality=95, exif=exif), 3, size, "stretch").astype(float)
    turned = detail.transpose(Image.Transpose.ROTATE_270)
    plain = np.asarray(turned.resize(size[::-1], Image.Resampling.LANCZOS)).transpose(2, 0, 1).astype(float)
    assert abs(hurried - plain).mean() < 0.12 * plain.std()


def test_exif_behind_the_pixels_of_a_png_is_obeyed():
    image = Image.fromarray(noise(3))
    exif = Image.Exif()
    exif[0x0112] = 3
    content = stored(image, exif=exif).getvalue()
    start = content.index(b"eXIf") - 4
    length = 12 + struct.unpack(">I", content[start : start + 4])[0]
    end = content.index(b"IEND") - 4
    moved = content[:start] + content[start + length : end] + content[start : start + length] + content[end:]
    turned = image.transpose(Image.Transpose.ROTATE_180)
    assert np.array_equal(read(io.BytesIO(moved), 3, (10, 14)), read(turned, 3))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"])
def test_a_header_is_read_without_decoding_pixels(kind, monkeypatch):
    file = stored(Image.fromarray(noise(3)), kind)
    monkeypatch.setattr(ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert read_header(file).width == 14
