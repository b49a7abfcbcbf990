"""Decoding: each rule of the module's list, and that no setting of the user's bends one."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from headstart.errors import UnreadableImageError
from headstart.extract import decode as module
from headstart.extract.decode import FORMATS, MAX_PIXELS, SCALED, decode

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 32
RED = np.array([[[255, 0, 0]]], np.uint8)


def painted(width: int = 60, height: int = 44) -> Image.Image:
    """A picture with a different colour in every corner and fine detail between."""
    y, x = np.mgrid[:height, :width]
    ripple = 40 * np.sin(x * 0.9) * np.cos(y * 0.7)
    red, green, blue = 255 * x / width, 255 * y / height, 128 + ripple
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def plainly(image: Image.Image, size: int = SIZE) -> NDArray[np.uint8]:
    rows = image.convert("RGB").resize((size, image.height), Image.Resampling.BILINEAR)
    return np.array(rows.resize((size, size), Image.Resampling.BILINEAR))


def distance(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def png(width: int, height: int, depth: int, colour: int, raw: bytes, *extra: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def reason(data: bytes, **options: Any) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode(data, SIZE, **options)
    return str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_named_is_decoded(kind: str) -> None:
    """What Pillow writes in each of the formats comes back as the picture it was."""
    pixels = decode(encoded(painted(), kind), SIZE)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    close = pixels if kind in {"JPEG", "MPO", "WEBP", "GIF"} else plainly(painted())
    assert distance(pixels, close) == 0
    assert np.abs(pixels.astype(int) - plainly(painted())).mean() < 15


def test_formats_not_named_are_refused() -> None:
    """A picture in another format, and text, are told apart from damage."""
    for data in (encoded(painted(), "PPM"), encoded(painted(), "ICO"), b"once upon a time"):
        assert reason(data) == f"not a picture in one of the formats {', '.join(FORMATS)}"
    assert reason(b"") == "empty file"


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (60, 44), (1, 3000), (3000, 1)])
def test_every_mode_and_shape_becomes_rgb(mode: str, size: tuple[int, int]) -> None:
    """Whatever the mode and the shape, the answer is that of Pillow's own conversion."""
    image = painted(*size)
    image = image.quantize(64).convert("PA") if mode == "PA" else image.convert(mode)
    data = encoded(image, "TIFF")
    assert distance(decode(data, SIZE), plainly(Image.open(io.BytesIO(data)))) <= 1


@settings(deadline=None, max_examples=40)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    size=st.integers(1, 64),
    rows=st.integers(1, 90),
    seed=st.integers(0, 9),
)
def test_strips_leave_no_trace(width: int, height: int, size: int, rows: int, seed: int) -> None:
    """Converting strip by strip equals converting the whole, wherever the strips end."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    image = Image.fromarray(pixels)
    white = Image.new("RGBA", image.size, "white")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_STRIP_PIXELS", rows * width)
        found = decode(encoded(image), size)
    assert distance(found, plainly(Image.alpha_composite(white, image), size)) == 0


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_scaled_decoding_of_a_large_jpeg(mode: str, progressive: bool) -> None:
    """By the scaled rule a JPEG's decoder averages first: near the full one, and not the same."""
    smooth = painted().resize((600, 440), Image.Resampling.BICUBIC).convert(mode)
    data = encoded(smooth, "JPEG", quality=95, progressive=progressive)
    full, scaled = decode(data, SIZE), decode(data, SIZE, rule=SCALED)
    assert scaled.shape == full.shape
    assert 0 < np.abs(scaled.astype(int) - full).mean() < 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_scaled_decoding_of_others_is_the_full(kind: str) -> None:
    """A JPEG below twice the size, and every other format, are the same by both rules."""
    width = 2 * SIZE - 1 if kind == "JPEG" else 9 * SIZE
    data = encoded(painted(width, 9 * SIZE), kind)
    assert distance(decode(data, SIZE), decode(data, SIZE, rule=SCALED)) == 0


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_the_picture_upright(kind: str, orientation: int) -> None:
    """However a camera was held, the picture is the one that a viewer shows."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {"quality": 95}
    data = encoded(painted(), kind, exif=exif.tobytes(), **options)
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
    assert distance(decode(data, SIZE), plainly(upright)) <= 2
    if orientation > 1:
        assert distance(decode(data, SIZE), plainly(painted())) > 50


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"II",
        b"Exif\0\0garbage that is no directory",
        b"II*\0\xff\xff\xff\x7f",
        b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0" * 5,
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0",  # orientation 99
        b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x01\0\x06\0\0",  # orientation as text
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_means_upright(kind: str, exif: bytes) -> None:
    """EXIF that cannot be read, or makes no sense, harms no picture."""
    plain, broken = encoded(painted(), kind), encoded(painted(), kind, exif=b"Exif\0\0" + exif)
    assert distance(decode(broken, SIZE), decode(plain, SIZE)) == 0


def test_broken_metadata_harms_no_picture() -> None:
    """ICC profiles, text and XMP that Pillow itself stumbles over are not even looked at."""
    jpeg = encoded(painted(), "JPEG")
    icc = b"ICC_PROFILE\0"
    segments = [b"\xff\xe2" + struct.pack(">H", 2 + len(icc)) + icc, b"\xff\xfe\0\x06abcd"]
    assert distance(decode(jpeg[:2] + b"".join(segments) + jpeg[2:], SIZE), decode(jpeg, SIZE)) == 0
    data = encoded(painted())
    bomb = zlib.compress(b"a" * 80_000_000)
    wrong_checksum = chunk(b"eXIf", b"II*\0")[:-1] + b"?"
    for extra in (
        chunk(b"iCCP", b"name\0\0" + bomb),
        chunk(b"zTXt", b"k\0\0" + bomb),
        wrong_checksum,
    ):
        assert distance(decode(data[:33] + extra + data[33:], SIZE), plainly(painted())) == 0


def test_transparency_in_all_its_forms_is_white() -> None:
    """A half transparent picture fades to white; what is fully transparent is white, not black."""
    black = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    for mode in ("RGBA", "LA", "PA"):
        image = black.quantize(4).convert("PA") if mode == "PA" else black.convert(mode)
        if mode == "PA":
            image.putalpha(0)
        assert decode(encoded(image, "TIFF"), SIZE).min() == 255, mode
    half = Image.new("RGBA", (20, 20), (0, 0, 0, 128))
    assert set(np.unique(decode(encoded(half), SIZE))) == {127}
    for kind in ("GIF", "WEBP"):
        assert decode(encoded(black, kind), SIZE).min() == 255, kind


def test_transparency_before_the_resize() -> None:
    """Colours hidden under full transparency never bleed into the picture."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, ::2] = (200, 0, 0, 255)
    pixels[:, 1::2] = (0, 255, 0, 0)  # hidden green
    found = decode(encoded(Image.fromarray(pixels)), SIZE)
    assert distance(found[..., 1], found[..., 2]) == 0


@pytest.mark.parametrize(
    ("depth", "colour", "raw", "key"),
    [
        (1, 0, b"\0\x40", b"\0\1"),
        (2, 0, b"\0\x30", b"\0\3"),
        (4, 0, b"\0\x0f\x00\x00", b"\0\x0f"),
        (8, 0, b"\0\0\x50\0\0", b"\0\x50"),
        (16, 0, b"\0" + struct.pack(">4H", 0, 0x1234, 0, 0), b"\x12\x34"),
        (8, 2, b"\0" + b"\0\0\0\1\2\3" + bytes(6), b"\0\1\0\2\0\3"),
        (16, 2, b"\0" + bytes(6) + b"\1\1\2\2\3\3" + bytes(12), b"\1\1\2\2\3\3"),
    ],
)
def test_a_transparent_colour_is_white(depth: int, colour: int, raw: bytes, key: bytes) -> None:
    """PNG's one transparent colour is honoured at every depth; the second pixel has it here."""
    data = png(4, 1, depth, colour, raw, chunk(b"tRNS", key))
    assert decode(data, 4)[0].tolist() == [[0] * 3, [255] * 3, [0] * 3, [0] * 3]


def test_palette_with_transparency() -> None:
    """Each entry of a palette may have its own opacity."""
    palette = chunk(b"PLTE", bytes([10, 20, 30, 0, 0, 0, 0, 0, 0]))
    data = png(3, 1, 8, 3, b"\0\0\1\2", palette, chunk(b"tRNS", bytes([255, 128, 0])))
    assert decode(data, 3)[0].tolist() == [[10, 20, 30], [127] * 3, [255] * 3]


def test_sixteen_bits_keep_the_high_byte() -> None:
    """16-bit grey and colour are scaled to 8 bits, never clipped or wrapped."""
    samples = struct.pack(">4H", 0x0000, 0x12FF, 0x80FF, 0xFFFF)
    grey = decode(png(4, 1, 16, 0, b"\0" + samples), 4)[0, :, 0]
    assert grey.tolist() == [0x00, 0x12, 0x80, 0xFF]
    colour = decode(png(1, 1, 16, 2, b"\0" + samples[2:]), 1)[0, 0]
    assert colour.tolist() == [0x12, 0x80, 0xFF]
    tiff = encoded(Image.fromarray(np.array([[0, 0x1234, 0xFFFF]], np.uint16)), "TIFF")
    assert decode(tiff, 3).shape == (3, 3, 3)
    assert decode(tiff, 3)[1, :, 0].tolist() == [0, 0x12, 0xFF]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_of_32_bits_have_no_range(kind: type) -> None:
    """Depth maps and measurements are refused rather than clipped."""
    data = encoded(Image.fromarray(np.ones((4, 4), kind)), "TIFF")
    assert reason(data) == "pixels of 32 bits, which have no defined range"


def test_cmyk_jpeg_has_its_colours() -> None:
    """A CMYK JPEG, stored inverted as Adobe's and Pillow's are, shows its true colours."""
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert distance(decode(encoded(red, "JPEG"), 1), RED) <= 3


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_an_animation_shows_its_first_frame(kind: str) -> None:
    """Only the first frame counts, also where later ones are damaged."""
    frames = [Image.new("RGB", (24, 24), colour) for colour in ("red", "lime", "blue")]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **lossless)
    assert distance(decode(data, 1), RED) <= 3
    assert len(data) > len(encoded(frames[0], kind, **lossless))


def test_pixel_limit_is_checked_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture over the limit is refused by its declared size; no pixel is decoded."""
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    assert reason(png(20_000, 20_000, 8, 2, b"")) == "400.0 megapixels, over the limit of 64"
    assert reason(encoded(painted(200, 101)), max_pixels=20_000) == (
        "200 x 101 pixels, over the limit of 20000"
    )
    assert reason(encoded(painted()), max_pixels=1) == "60 x 44 pixels, over the limit of 1"


def test_elongated_pictures_cannot_exhaust_memory() -> None:
    """A line within the pixel limit would be stretched through billions of pixels: refused."""
    line = png(1, MAX_PIXELS // SIZE + 1, 1, 0, b"")
    assert "too elongated" in reason(line)
    assert decode(encoded(Image.new("1", (1, 20_000), 1)), SIZE).min() == 255


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_truncation_is_never_decoded(kind: str) -> None:
    """Half a picture is refused, at whatever point it was cut."""
    data = encoded(painted(), kind)
    for cut in range(1, 10):
        assert reason(data[: len(data) * cut // 10])


def test_reasons_are_words() -> None:
    """A ledger says what is wrong, where Pillow says a number or how Python unpacks bytes."""
    tiff = encoded(painted(), "TIFF")
    compression = struct.pack("<HHI", 259, 3, 1)
    odd = tiff.replace(compression + struct.pack("<H", 1), compression + struct.pack("<H", 4711))
    assert reason(odd) == "damaged TIFF: unknown code 4711"
    assert reason(encoded(painted(), "GIF")[:9]) == "truncated GIF: ends within its header"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_user_settings_bend_no_rule(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that notebooks make let no half picture in and keep no good one out."""
    data = encoded(painted(), kind)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert kind in reason(data[: len(data) // 2])
    assert decode(data, SIZE).shape == (SIZE, SIZE, 3)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert Image.MAX_IMAGE_PIXELS == 10


def test_warnings_stay_quiet_and_filters_stay_as_they_were() -> None:
    """Pillow's warnings about odd metadata become neither noise nor, as errors, a refusal."""
    data = encoded(painted(), "TIFF")
    strips = data.index(struct.pack("<HHI", 279, 4, 1))  # StripByteCounts, now of two
    data = data[: strips + 4] + struct.pack("<II", 2, len(data) - 4) + data[strips + 12 :]
    filters = list(warnings.filters)
    with pytest.raises(UserWarning), Image.open(io.BytesIO(data)):
        pass
    assert decode(data, SIZE).shape == (SIZE, SIZE, 3)
    assert list(warnings.filters) == filters


def test_a_png_that_ends_early_in_good_order_is_refused() -> None:
    """Checksums all right, rows missing: Pillow alone would answer black rows."""
    whole = b"".join(b"\0" + bytes(range(1, 31)) for _ in range(10))
    for rows in range(10):
        assert reason(png(30, 10, 8, 0, whole[: rows * 31])).startswith("truncated PNG")
    assert decode(png(30, 10, 8, 0, whole), SIZE).min() > 0
    black = png(30, 10, 8, 0, bytes(310))
    assert decode(black, SIZE).max() == 0


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    """Thousands of scans would keep a decoder busy for minutes."""
    data = encoded(painted(), "JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    assert reason(data[:scan] + data[scan:-2] * 1000 + data[-2:]).startswith("damaged JPEG: 10")


def test_threads_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many threads at once answer as one does, and leave the settings as they found them."""
    good, bad = encoded(painted(), "JPEG"), encoded(painted(), "JPEG")[:-300]
    expected = decode(good, SIZE)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    filters = list(warnings.filters)
    barrier = threading.Barrier(8)

    def work(_: int) -> bool:
        barrier.wait()
        for _ in range(20):
            assert reason(bad)
            assert distance(decode(good, SIZE), expected) == 0
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert list(warnings.filters) == filters


@settings(deadline=None, max_examples=60)
@given(data=st.binary(max_size=300), magic=st.sampled_from(module._MAGIC))
def test_noise_after_a_true_beginning(data: bytes, magic: tuple[bytes, str]) -> None:
    """Bytes that only begin like a picture are refused with a one-line reason."""
    assert "\n" not in reason(magic[0] + data)


def test_large_pictures_wait_for_each_other() -> None:
    """Threads together never hold more pixels than the budget; a larger one goes alone."""
    budget, lock = module._Budget(100), threading.Lock()
    held, most, alone = 0, 0, []

    def work(pixels: int) -> None:
        nonlocal held, most
        with budget.holding(pixels):
            with lock:
                held += pixels
                most = max(most, held if pixels <= 100 else 0)
                alone.append(pixels <= 100 or held == pixels)
            threading.Event().wait(0.002)
            with lock:
                held -= pixels

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [10, 60, 60, 30, 250, 40, 90, 20] * 5))
    assert 60 < most <= 100
    assert all(alone)
    assert budget._free == 100
