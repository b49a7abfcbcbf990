"""Decoding: a picture file's bytes become ``(size, size, 3)`` uint8 pixels, by one rule.

The rule, ``DECODING = "pillow-1"`` of the spec:

1. The format is told by the first bytes, never by the name, and is one of `FORMATS`.
2. The declared size is checked before any pixel is decoded.
3. Only what the pixels depend on is read. Damaged EXIF, ICC, XMP and comments harm no picture;
   colour profiles are not applied.
4. The first frame of an animation is taken; of an animated PNG, the still picture every viewer
   shows.
5. Palette, grey, 1-bit, CMYK, YCbCr and Lab become RGB; 16-bit samples keep their high byte.
   Pixels of 32 bits have no defined range and are refused.
6. Transparent pixels are composited on white, before the resize: dropping alpha leaves black
   garbage.
7. The picture is stretched to ``size x size``, bilinear and antialiased, along rows first.
8. EXIF orientation is applied last, on the small picture.

By ``"pillow-1-scaled"`` a JPEG is decoded at the smallest of 1/1, 1/2, 1/4 and 1/8 of its size that
is at least ``size`` wide and high: its decoder averages then, before the resize, in less time. All
else is the same.

What is cut short or damaged is refused as far as its format lets one see it: JPEG has no checksums,
and damage within its data, or an end mark put where a picture was cut, shows as odd or grey pixels.

Nothing here depends on Pillow's global settings, or changes them for longer than a call.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import threading
import warnings
import zlib
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, cast

import numpy as np
import PIL
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from headstart.errors import ImageMemoryError, UnreadableImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

#: What decodes, to the version: what one cannot read, the next perhaps can.
DECODER = f"Pillow {PIL.__version__}"
DECODING, SCALED = "pillow-1", "pillow-1-scaled"
#: What a user asks for, and the rule that it stands for.
RULES = {"full": DECODING, "scaled": SCALED}
RESAMPLING = "bilinear-antialias"
MAX_PIXELS = 64_000_000
FORMATS: tuple[str, ...] = ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF")

_STRIP_PIXELS = 1 << 20
_PIXELS_IN_HAND = 128_000_000  # by all threads together, so that memory is bounded, not their speed
_MAX_SCANS = 500  # a progressive JPEG has about ten; thousands keep a decoder busy for minutes

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"MM\x00\x2a", "TIFF"),
    (b"II\x2a\x00", "TIFF"),
    (b"MM\x00\x2b", "TIFF"),
    (b"II\x2b\x00", "TIFF"),
)
# The classes are called directly, not through Image.open, whose answer depends on a global pixel
# limit. An MPO file is a JPEG followed by others: its first picture is what the JPEG class reads.
_READERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "WEBP": WebPImageFile,
    "TIFF": TiffImageFile,
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_INFLATE_BYTES = 1 << 14  # of input; deflate makes at most a thousand times as much of it
_PNG_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT"})
# APP1 to APP13, APP15 and comments; APP0 (JFIF) and APP14 (Adobe) decide colours.
_JPEG_METADATA = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})
# Markers that have no length, and the start of the scan, where the walk ends.
_JPEG_BARE = frozenset({0x00, 0x01, *range(0xD0, 0xDB)})
# Size, sample layout, compression, strips and tiles, palette, JPEG tables, ink set, YCbCr. 0xBC01
# marks a kind of TIFF that Pillow knows to refuse.
_TIFF_PIXEL_TAGS = frozenset(
    {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325}
    | {332, 338, 339, 347, *range(512, 522), *range(529, 533), 0xBC01}
)

# Without a handler of its own, a logger that nobody configured prints errors to the terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def decode(
    data: bytes, size: int, *, max_pixels: int = MAX_PIXELS, rule: str = DECODING
) -> NDArray[np.uint8]:
    """Decode one picture.

    Thread safe; Pillow releases the interpreter's lock while it works. Calls wait for each other
    where their pictures together have more than 128 million pixels. At its peak a call holds
    `data` twice and, for each pixel of the picture, 1 byte (grey, palette), 2 (16-bit grey), 4
    (most) or about 16 (WebP).

    Parameters
    ----------
    data
        The bytes of the whole file.
    size
        Height and width of the answer in pixels.
    max_pixels
        Pictures of more pixels than this are refused, undecoded.
    rule
        One of `RULES`.

    Returns
    -------
    NDArray[uint8]
        Shape ``(size, size, 3)``, red, green and blue.

    Raises
    ------
    UnreadableImageError
        With a short reason, fit for the ledger.

    Examples
    --------
    >>> decode(b"", 150)
    Traceback (most recent call last):
    ...
    headstart.errors.UnreadableImageError: empty file
    """
    kind = _format(data)
    with _own_settings(max_pixels), _as_reason(kind, max_pixels):
        data, exif = _essentials(data, kind)
        image = _READERS[kind](io.BytesIO(data))
        _check_size(image, size, max_pixels)
        _check_effort(image, data, kind)
        colour_key = _colour_key(image, data, kind)
        exif = exif or image.info.get("exif", b"")
        if rule == SCALED and isinstance(image, JpegImageFile):
            image.draft(None, (size, size))
        with _in_hand.holding(image.width * image.height):
            image.load()
            if kind == "PNG":
                _check_png_rows(image, data)
            small = _resized(image, size, colour_key)
            del image
    turn = _TURNS.get(_orientation(exif))
    return np.array(small if turn is None else small.transpose(turn))


class _Budget:
    """Pixels that may be in memory at once; one picture over the budget is decoded alone."""

    def __init__(self, pixels: int) -> None:
        self._all = self._free = pixels
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, pixels: int) -> Iterator[None]:
        """Wait until these pixels fit, and hold them."""
        pixels = min(pixels, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


_in_hand = _Budget(_PIXELS_IN_HAND)


def _format(data: bytes) -> str:
    if not data:
        raise UnreadableImageError("empty file")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    raise UnreadableImageError(f"not a picture in one of the formats {', '.join(FORMATS)}")


class _Borrowed:
    """The user's global settings while at least one thread decodes under ours."""

    lock = threading.Lock()
    threads = 0
    truncated_allowed = False
    pixels_allowed: int | None = None
    quiet = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@contextmanager
def _own_settings(max_pixels: int) -> Iterator[None]:
    """Let no setting of the user's change a pixel and no warning stop a picture; give them back.

    ``LOAD_TRUNCATED_IMAGES`` (many a notebook sets it) would pass half a picture off as a whole,
    and a ``MAX_IMAGE_PIXELS`` below our limit keep good ones out; it is never set above what it was
    or `max_pixels`. ``warnings.catch_warnings`` would not do: threads that leave it out of order
    mix the filters up.
    """
    with _Borrowed.lock:
        if _Borrowed.threads == 0:
            _Borrowed.truncated_allowed = ImageFile.LOAD_TRUNCATED_IMAGES
            _Borrowed.pixels_allowed = Image.MAX_IMAGE_PIXELS
        _Borrowed.threads += 1
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        if Image.MAX_IMAGE_PIXELS is not None:
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
        warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _Borrowed.lock:
            _Borrowed.threads -= 1
            if _Borrowed.threads == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = _Borrowed.truncated_allowed
                Image.MAX_IMAGE_PIXELS = _Borrowed.pixels_allowed
                with suppress(ValueError):  # another thread's catch_warnings took it away
                    cast("list[object]", warnings.filters).remove(_Borrowed.quiet)


@contextmanager
def _as_reason(kind: str, max_pixels: int) -> Iterator[None]:
    """Turn whatever Pillow raises on hostile bytes into a short reason."""
    try:
        yield
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError:  # at twice the limit, before the size could be asked
        raise UnreadableImageError(f"over the limit of {max_pixels / 1e6:g} megapixels") from None
    except MemoryError:
        raise ImageMemoryError(f"not enough memory for this {kind}") from None
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise nearly every kind
        raise UnreadableImageError(_reason(kind, error)) from None


def _reason(kind: str, error: Exception) -> str:
    what = " ".join(str(error).split())[:120] or type(error).__name__
    if isinstance(error.__cause__ or error, struct.error | IndexError):
        return f"truncated {kind}: ends within its header"
    if "truncated" in what.lower() or isinstance(error, EOFError):
        return f"truncated {kind}: {what}"
    if what.isdecimal():  # a KeyError, of a table of what Pillow knows
        return f"damaged {kind}: unknown code {what}"
    return f"damaged {kind}: {what}"


def _essentials(data: bytes, kind: str) -> tuple[bytes, bytes]:
    """Return the parts that pixels depend on, still a file of this kind, and the EXIF block."""
    if kind == "JPEG":
        return _jpeg_essentials(data)
    if kind == "PNG":
        return _png_essentials(data)
    if kind == "TIFF" and data[2] + data[3] == 42:
        return _tiff_essentials(data), data  # EXIF is a TIFF directory, and the other way round
    return data, b""


def _jpeg_essentials(data: bytes) -> tuple[bytes, bytes]:
    view = memoryview(data)
    kept, exif, at = [view[:2]], b"", 2
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data) and data[at + 1] not in _JPEG_BARE:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        end = at + 2 + int.from_bytes(view[at + 2 : at + 4], "big")
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            exif = exif or data[at + 10 : end]
        if marker not in _JPEG_METADATA:
            kept.append(view[at:end])
        at = end
    if sum(map(len, kept)) == at:
        return data, exif  # all of it: no copy
    return b"".join((*kept, view[at:])), exif


def _png_essentials(data: bytes) -> tuple[bytes, bytes]:
    view = memoryview(data)
    kept, exif, at = [view[:8]], b"", 8
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if name == b"IEND" or not name.isalpha():
            break
        if name in _PNG_PIXEL_CHUNKS:
            kept.append(view[at:end])
        elif name == b"eXIf":
            exif = exif or data[at + 8 : end - 4]
        at = end
    return b"".join((*kept, view[at:])), exif


def _tiff_essentials(data: bytes) -> bytes:
    """Return a TIFF of the same length whose first directory, now its last, has only pixel tags."""
    order = "<" if data[:2] == b"II" else ">"
    with suppress(struct.error):
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        places = range(start + 2, start + 2 + 12 * count, 12)
        entries = [struct.unpack_from(order + "H10s", data, place) for place in places]
        kept = [struct.pack(order + "H10s", *e) for e in entries if e[0] in _TIFF_PIXEL_TAGS]
        directory = b"".join((struct.pack(order + "H", len(kept)), *kept, bytes(4)))
        return b"".join((data[:start], directory, memoryview(data)[start + len(directory) :]))
    return data


def _check_size(image: Image.Image, size: int, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels and max_pixels < 100_000:
        raise UnreadableImageError(f"{width} x {height} pixels, over the limit of {max_pixels}")
    if width * height > max_pixels:
        raise UnreadableImageError(
            f"{width * height / 1e6:.1f} megapixels, over the limit of {max_pixels / 1e6:g}"
        )
    # A line 64 million pixels long is within the limit, but stretching it passes through an
    # intermediate picture `size` times as large.
    if max(width, height) * size > MAX_PIXELS:
        raise UnreadableImageError(
            f"{width} x {height} pixels, too elongated: over {MAX_PIXELS // size} on one side"
        )


def _check_effort(image: ImageFile.ImageFile, data: bytes, kind: str) -> None:
    """Refuse files made to keep a decoder busy: endless JPEG scans, TIFF tiles that overlap."""
    if kind == "JPEG" and _scans(data) > _MAX_SCANS:  # of all pictures of an MPO
        end = data.find(b"\xff\xd9")
        scans = data.count(b"\xff\xda", 0, end if end >= 0 else len(data))
        if scans > _MAX_SCANS:
            raise UnreadableImageError(f"damaged JPEG: {scans} scans")
    if kind == "TIFF":
        boxes = [tile.extents or (0, 0, 0, 0) for tile in image.tile]
        covered = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes)
        if not 1 <= covered / (image.width * image.height) <= 5:
            raise UnreadableImageError("damaged TIFF: its tiles overlap or leave holes")


def _scans(jpeg: bytes) -> int:
    """Return how often ``ff da``, which begins a scan, is in a JPEG: `bytes.count` is slower."""
    halves = [np.frombuffer(jpeg, "<u2", (len(jpeg) - first) // 2, first) for first in (0, 1)]
    return sum(int(np.count_nonzero(half == 0xDAFF)) for half in halves)


def _check_png_rows(image: Image.Image, data: bytes) -> None:
    """Refuse a PNG whose compressed data ends, in good order, before its last row.

    Pillow leaves such rows 0 and says nothing. A last row that is not all 0 has been written (rows
    come in order unless interlaced), so that most pictures need not be inflated a second time.
    """
    width, height = image.size
    depth, colour, interlaced = data[24], data[25], data[28]
    last_row = image.crop((0, height - 1, width, height))
    if not interlaced and last_row.getbbox(alpha_only=False) is not None:
        return
    bits = depth * {2: 3, 4: 2, 6: 4}.get(colour, 1)
    sizes = [(width, height)]
    if interlaced:
        sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in _PNG_PASSES]
    expected = sum((1 + (w * bits + 7) // 8) * h for w, h in sizes if w > 0 and h > 0)
    found = _inflated(data)
    if found < expected:
        raise UnreadableImageError(f"truncated PNG: {found} bytes of pixels of {expected}")


def _inflated(png: bytes) -> int:
    """Return how many bytes a PNG's pixel data hold, inflating little by little."""
    view, inflate, total, at = memoryview(png), zlib.decompressobj(), 0, 8
    while at + 12 <= len(png) and not inflate.eof:
        length, name = struct.unpack_from(">I4s", png, at)
        if name == b"IDAT":
            for start in range(at + 8, at + 8 + length, _INFLATE_BYTES):
                piece = view[start : min(start + _INFLATE_BYTES, at + 8 + length)]
                total += len(inflate.decompress(piece))
        at += 12 + length
    return total


def _colour_key(image: Image.Image, data: bytes, kind: str) -> tuple[int, ...] | None:
    """Take the one colour that stands for "transparent" (PNG's tRNS, a grey GIF's index).

    Pillow compares it with samples that it has widened to 8 bits, or cut to them, without doing the
    same to the key.
    """
    key = image.info.get("transparency")
    if key is None or image.mode not in {"1", "L", "RGB", "I;16"}:
        return None
    del image.info["transparency"]
    levels = np.atleast_1d(np.asarray(key, np.int64))
    depth = data[24] if kind == "PNG" else 8
    if depth < 8 and image.mode == "L":
        levels = levels * 255 // (2**depth - 1)
    if depth == 16 and image.mode == "RGB":
        levels = levels >> 8
    return tuple(levels.tolist())


def _resized(image: Image.Image, size: int, colour_key: tuple[int, ...] | None) -> Image.Image:
    """Return the loaded picture as RGB on white, stretched; along rows first, then columns.

    Which comes first is left to no version of Pillow: it moves values by 1. Because rows come
    first, colours can be converted strip by strip and each strip narrowed at once, so that no
    second picture of full size ever exists.
    """
    width, height = image.size
    if image.mode in {"RGB", "L"} and colour_key is None:
        narrow = _stretched(image, size, height)
        narrow = narrow.convert("RGB") if narrow.mode == "L" else narrow  # else it would copy
    else:
        to_rgb = _converter(image, colour_key)
        narrow = Image.new("RGB", (size, height))
        rows = max(1, _STRIP_PIXELS // width)
        for top in range(0, height, rows):
            strip = to_rgb(image.crop((0, top, width, min(top + rows, height))))
            narrow.paste(_stretched(strip, size, strip.height), (0, top))
    return _stretched(narrow, size, size)


def _stretched(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _converter(
    image: Image.Image, colour_key: tuple[int, ...] | None
) -> Callable[[Image.Image], Image.Image]:
    """Choose how pixels of this picture's mode become RGB on white."""
    if image.mode in {"I", "F"}:
        raise UnreadableImageError("pixels of 32 bits, which have no defined range")
    if image.mode.startswith("I;16"):
        _check_grey16(image)
        return lambda strip: _grey16(strip, colour_key)
    if colour_key is not None:
        return lambda strip: _keyed(strip, colour_key)
    if image.has_transparency_data:
        return _on_white
    return lambda strip: strip.convert("RGB")


def _check_grey16(image: Image.Image) -> None:
    """Refuse the greys that Pillow reads into 16 bits without scaling or inverting them."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(258, (16,)) != (16,) or tags.get(262, 1) != 1:
        raise UnreadableImageError("TIFF with 12-bit grey, or with 16-bit grey where 0 is white")


def _grey16(strip: Image.Image, colour_key: tuple[int, ...] | None) -> Image.Image:
    samples = np.asarray(strip)
    grey = (samples >> 8).astype(np.uint8)
    if colour_key is not None:
        grey[samples == colour_key[0]] = 255
    return Image.fromarray(grey).convert("RGB")


def _keyed(strip: Image.Image, colour_key: tuple[int, ...]) -> Image.Image:
    pixels = np.array(strip.convert("RGB"))
    pixels[(pixels == np.asarray(colour_key)).all(axis=-1)] = 255
    return Image.fromarray(pixels)


def _on_white(strip: Image.Image) -> Image.Image:
    if strip.mode == "La":
        strip = strip.convert("LA")  # Pillow knows no direct way, and drops alpha on its own
    coloured = strip.convert("RGBA")
    white = Image.new("RGBA", strip.size, "white")
    return Image.alpha_composite(white, coloured).convert("RGB")


def _orientation(exif: bytes) -> int:
    """Read EXIF's orientation tag from the first directory; 1, upright, where unreadable."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    with suppress(struct.error):
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * entries, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, entry)
            if tag == 0x0112:
                return int(value) if kind == 3 else 1
    return 1
