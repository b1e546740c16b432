"""The rule by which an image file becomes 32 x 32 pixels, and what is refused."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pipeline.errors import ImageError, ImageTooLargeError
from pipeline.inference import images
from pipeline.inference.images import decode, read_image, why_unreadable


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """Two ramps and a constant, so that resizing has one right answer wherever it is done."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * y / height, 255 * x / width, np.full((height, width), 90)], axis=2).astype(np.uint8)


def saved(image: Image.Image, format: str = "PNG", **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format, **options)
    file.seek(0)
    return file


LOSSLESS = {"PNG": {}, "BMP": {}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("format", LOSSLESS)
def test_an_image_of_32_by_32_pixels_stays_as_it_is(format):
    pixels = noise(32, 32)
    np.testing.assert_array_equal(decode(saved(Image.fromarray(pixels), format, **LOSSLESS[format])), pixels)


def test_the_largest_centred_square_is_resized():
    pixels = noise(60, 100)
    expected = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC, box=(20, 0, 80, 60))
    np.testing.assert_array_equal(decode(saved(Image.fromarray(pixels))), expected)
    upright = decode(saved(Image.fromarray(pixels.transpose(1, 0, 2).copy())))
    np.testing.assert_allclose(upright.astype(int), np.asarray(expected).transpose(1, 0, 2).astype(int), atol=2)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 500), (2000, 3)])
def test_any_size_will_do(size):
    found = decode(saved(Image.new("RGB", size, (10, 20, 30))))
    assert found.shape == (32, 32, 3)
    assert found.dtype == np.uint8
    assert (found == (10, 20, 30)).all()


def test_pixels_can_be_written_to_and_are_contiguous():
    found = decode(saved(Image.fromarray(noise(32, 32))))
    assert found.flags.writeable
    assert found.flags.c_contiguous


GREY = noise(32, 32, 1)[:, :, 0]
NOISE = Image.fromarray(noise(32, 32))
FEW_COLOURS = NOISE.quantize(16)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(GREY), np.stack([GREY] * 3, axis=2)),
        (Image.fromarray(GREY > 127), np.stack([(GREY > 127) * 255] * 3, axis=2)),
        (Image.fromarray(GREY.astype(np.uint16) * 256 + 255), np.stack([GREY] * 3, axis=2)),
        (FEW_COLOURS, np.asarray(FEW_COLOURS.convert("RGB"))),
        (Image.merge("RGBA", [*NOISE.split(), Image.new("L", (32, 32), 255)]), noise(32, 32)),
        (Image.new("RGBA", (32, 32), (200, 10, 10, 0)), np.full((32, 32, 3), 255)),
        (Image.new("LA", (32, 32), (10, 0)), np.full((32, 32, 3), 255)),
    ],
    ids=["grey", "black and white", "16 bits of grey", "palette", "opaque", "transparent", "transparent grey"],
)  # fmt: skip
def test_every_mode_becomes_rgb(image, expected):
    np.testing.assert_array_equal(decode(saved(image)), expected)


def test_half_transparent_pixels_are_mixed_with_white():
    found = decode(saved(Image.new("RGBA", (32, 32), (0, 100, 255, 128))))
    np.testing.assert_allclose(found[0, 0].astype(int), [127, 177, 255], atol=1)


def test_what_is_transparent_does_not_colour_its_neighbours_when_it_is_resized():
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :32] = (0, 255, 0, 255)
    pixels[:, 32:] = (255, 0, 0, 0)  # a red that nobody shall see
    found = decode(saved(Image.fromarray(pixels))).astype(int)
    assert (found[:, :, 0] <= found[:, :, 1]).all()


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_colour_shows_white_there(format):
    image = Image.new("P", (32, 32), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 16, 32))
    found = decode(saved(image, format, transparency=0))
    assert (found[:, :16] == 255).all()
    assert (found[:, 16:] == (0, 0, 255)).all()


def test_a_cmyk_jpeg_is_read_as_rgb():
    found = decode(saved(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG", quality=95))
    np.testing.assert_allclose(found[16, 16].astype(int), [255, 0, 0], atol=8)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(format):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    found = decode(saved(frames[0], format, save_all=True, append_images=frames[1:], duration=50, **options))
    np.testing.assert_allclose(found[0, 0].astype(int), [255, 0, 0], atol=1)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_an_image_is_turned_as_its_orientation_tag_says(format, tag):
    image = Image.fromarray(smooth(96, 160))
    exif = Image.Exif()
    exif[0x0112] = tag
    options = {"quality": 95} if format == "JPEG" else {"lossless": True} if format == "WEBP" else {}
    file = saved(image, format, exif=exif, **options)
    whole = ImageOps.exif_transpose(Image.open(io.BytesIO(file.getvalue())))
    expected = ImageOps.fit(whole.convert("RGB"), (32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(decode(file).astype(int), np.asarray(expected).astype(int), atol=2)


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size_and_looks_the_same(monkeypatch):
    sizes = []
    original = images.fit
    monkeypatch.setattr(images, "fit", lambda image, most: sizes.append(image.size) or original(image, most))
    pixels = smooth(1200, 1600)
    found = decode(saved(Image.fromarray(pixels), "JPEG", quality=95))
    assert sizes == [(200, 150)]
    expected = ImageOps.fit(Image.fromarray(pixels), (32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(found.astype(int), np.asarray(expected).astype(int), atol=4)
    decode(saved(Image.fromarray(smooth(255, 300)), "JPEG"))
    assert sizes[1] == (300, 255), "below twice the least side it is decoded whole"


def png_header(width: int, height: int, colour_type: int = 2) -> bytes:
    """A PNG that claims a size, with next to no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(100_000, 100_000), (9000, 9000), (65_000, 1000)])
def test_a_decompression_bomb_is_refused_by_its_header(size, recwarn):
    with pytest.raises(ImageError, match="too many pixels"):
        decode(io.BytesIO(png_header(*size)))


def test_what_may_be_transparent_holds_more_and_may_have_fewer_pixels():
    with pytest.raises(ImageError, match="too many pixels: 6000 x 6000"):
        decode(io.BytesIO(png_header(6000, 6000, colour_type=6)))
    with pytest.raises(ImageError, match="damaged"):  # allowed to begin
        decode(io.BytesIO(png_header(6000, 6000)))


def test_who_asks_can_allow_less():
    file = saved(Image.new("RGB", (100, 100)))
    assert decode(file, most_bytes=40_000).shape == (32, 32, 3)
    file.seek(0)
    with pytest.raises(ImageTooLargeError, match=r"too many pixels: 100 x 100 \(at most 0 MB are decoded\)"):
        decode(file, most_bytes=39_999)


def test_large_images_take_turns(monkeypatch):
    monkeypatch.setattr(images, "SMALL_BYTES", 32 * 32 * 4 - 1)
    with images._ONE_AT_A_TIME:
        assert decode(saved(Image.new("RGB", (31, 32)))).shape == (32, 32, 3)
    held = []
    original = ImageOps.fit
    monkeypatch.setattr(
        ImageOps, "fit", lambda *words: held.append(images._ONE_AT_A_TIME.locked()) or original(*words)
    )
    decode(saved(Image.new("RGB", (32, 32))))
    decode(saved(Image.new("RGB", (31, 32))))
    assert held == [True, False]


@pytest.mark.parametrize("content", [b"not an image at all", b"\x89PNG", b"<svg/>", b"RIFF1234WEBPVP8 ", b"II*\0"])
def test_what_is_no_image_says_so(content):
    with pytest.raises(ImageError, match=r"not a PNG, JPEG, WebP, BMP or GIF image|damaged"):
        decode(io.BytesIO(content))


def test_other_formats_that_pillow_knows_are_not_opened():
    with pytest.raises(ImageError, match="not a PNG"):
        decode(saved(Image.new("RGB", (32, 32)), "TIFF"))


WHOLE = {
    format: saved(Image.fromarray(noise(40, 50)), format).getvalue()
    for format in ("PNG", "JPEG", "WEBP", "BMP", "GIF")
}


@pytest.mark.parametrize("format", WHOLE)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_image_is_refused(format, share):
    content = WHOLE[format]
    with pytest.raises(ImageError):
        decode(io.BytesIO(content[: int(len(content) * share)]))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    content=st.sampled_from(sorted(WHOLE.values())),
    at=st.floats(0, 1),
    junk=st.binary(min_size=1, max_size=8),
    cut=st.booleans(),
)
def test_damaged_bytes_give_pixels_or_one_line(content, at, junk, cut):
    place = int(at * len(content))
    damaged = content[:place] + junk + (b"" if cut else content[place + len(junk) :])
    try:
        found, said = decode(io.BytesIO(damaged)).shape, ""
    except ImageError as error:
        found, said = (32, 32, 3), str(error)
    assert found == (32, 32, 3)
    assert "\n" not in said
    assert len(said) < 300


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(noise(32, 32)).save(tmp_path / "good.png")
    return tmp_path


def test_a_file_is_read(folder):
    np.testing.assert_array_equal(read_image(folder / "good.png"), noise(32, 32))
    np.testing.assert_array_equal(read_image(str(folder / "good.png")), noise(32, 32))


def test_a_name_that_is_not_utf8_is_no_trouble(folder):
    name = os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png")
    (folder / "good.png").rename(name)
    assert read_image(name).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.touch(), "empty (0 bytes)"),
        (lambda path: path.mkdir(), "not a file, but a folder or a device"),
        (os.mkfifo, "not a file, but a folder or a device"),
        (lambda path: path.symlink_to("nowhere"), "a link that leads nowhere"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: None, "no such file or folder"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 300_000_000), "larger than 256 MB"),
    ],
    ids=["empty", "folder", "fifo", "link", "circle", "nothing", "huge"],
)
def test_what_is_no_readable_file_says_why(tmp_path, make, says):
    path = tmp_path / "it.png"
    make(path)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value) == says


def test_a_missing_permission_and_a_disk_that_fails_say_so(tmp_path):
    assert why_unreadable(tmp_path, PermissionError(13, "Permission denied")) == "no permission to read it"
    assert why_unreadable(tmp_path, OSError(5, "Input/output error")) == "Input/output error"
