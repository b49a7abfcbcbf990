"""Bad pictures, made by code: each file with the outcome it must have, and a seeded fuzzer.

Run as a program, ``python corpus.py SEED START STOP [SECONDS]`` decodes that range of the fuzzer's
pictures and prints what came of them as JSON; the process dies, naming the picture and the place,
if one takes longer than SECONDS.
"""

from __future__ import annotations

import faulthandler
import io
import json
import os
import random
import re
import socket
import struct
import sys
import time
import zlib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from headstart.errors import UnreadableImageError
from headstart.extract.decode import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

USED = ""
GONE = "not listed"
SIZE = 75

Cases = dict[str, tuple[bytes, str]]


def write(folder: Path) -> dict[str, str]:
    """Make the corpus as a class folder.

    Returns each path with what must be said of it: `USED`, `GONE` or words from the reason why it
    is left out.
    """
    outcomes = {}
    for group, cases in byte_cases().items():
        (folder / group).mkdir(parents=True)
        for name, (data, outcome) in cases.items():
            (folder / group / name).write_bytes(data)
            outcomes[f"{group}/{name}"] = outcome
    return outcomes | _write_odd_files(folder)


@cache
def byte_cases() -> dict[str, Cases]:
    """Return the cases that are a matter of bytes alone, by group and file name."""
    makers: tuple[Callable[[], Cases], ...] = (
        _no_pictures,
        _wrong_names,
        _truncated,
        _modes,
        _animations,
        _orientations,
        _broken_metadata,
        _sizes,
        _bombs,
        _damaged,
    )
    return {maker.__name__.strip("_"): maker() for maker in makers}


# --- building blocks -----------------------------------------------------------------------------


def painted(width: int = 48, height: int = 36, seed: int = 0) -> Image.Image:
    """A gradient with noise, so that no part of it compresses to nothing."""
    y, x = np.mgrid[:height, :width]
    base = np.stack([255 * x / width, 255 * y / height, 128 + 0 * x], axis=-1)
    noise = np.random.default_rng(seed).normal(0, 25, base.shape)
    return Image.fromarray(np.clip(base + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int, height: int, depth: int, colour: int, raw: bytes, *extra: bytes, interlaced: int = 0
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    body = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def rows(pixels: np.ndarray[Any, Any]) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def adam7(grey: np.ndarray[Any, Any]) -> bytes:
    starts = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
    return b"".join(rows(grey[y::dy, x::dx]) for x, y, dx, dy in (*starts, (0, 1, 1, 2)))


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def with_chunks(data: bytes, *chunks: bytes) -> bytes:
    return data[:33] + b"".join(chunks) + data[33:]


def oriented(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif.tobytes()


# --- the cases -----------------------------------------------------------------------------------


def _no_pictures() -> Cases:
    other = "not a picture in one of the formats"
    noise = random.Random(1).randbytes(5000)
    return {
        "empty.jpg": (b"", "empty file"),
        "empty.png": (b"", "empty file"),
        "one-byte.gif": (b"G", other),
        "text.jpg": (b"Dear all, please find attached\n", other),
        "page.png": (b"<!DOCTYPE html><title>404</title>", other),
        "drawing.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', other),
        "document.jpg": (b"%PDF-1.7\n", other),
        "archive.jpg": (b"PK\x03\x04" + noise, other),
        "film.webp": (b"RIFF\x10\0\0\0AVI LIST", other),
        "noise.bmp": (b"\x01" + noise, other),
        "zeros.tif": (bytes(1000), other),
        "newlines.jpg": (b"\n" * 100, other),
        "ppm.png": (encoded(painted(), "PPM"), other),
        "ico.bmp": (encoded(painted(), "ICO"), other),
        "jpeg2000.jpg": (encoded(painted(), "JPEG2000"), other),
        "avif.webp": (b"\0\0\0\x1cftypavif", other),
        "magic-only.jpg": (b"\xff\xd8\xff", "damaged JPEG"),
        "magic-only.png": (b"\x89PNG\r\n\x1a\n", "PNG"),
        "magic-only.gif": (b"GIF89a", "GIF"),
        "magic-only.bmp": (b"BM", "BMP"),
        "magic-only.webp": (b"RIFF\0\0\0\0WEBP", "WEBP"),
        "magic-only.tif": (b"II*\0", "TIFF"),
        "big-magic-only.tif": (b"II+\0", "TIFF"),
        "leading-newline.jpg": (b"\n" + encoded(painted(), "JPEG"), other),
    }


def _wrong_names() -> Cases:
    return {
        "png.jpg": (encoded(painted(), "PNG"), USED),
        "jpeg.png": (encoded(painted(), "JPEG"), USED),
        "gif.bmp": (encoded(painted(), "GIF"), USED),
        "bmp.gif": (encoded(painted(), "BMP"), USED),
        "webp.jpeg": (encoded(painted(), "WEBP"), USED),
        "tiff.webp": (encoded(painted(), "TIFF"), USED),
        "jpeg.TIFF": (encoded(painted(), "JPEG"), USED),
        "mpo.jfif": (encoded(painted(), "MPO"), USED),
    }


def _truncated() -> Cases:
    cases: Cases = {}
    for kind, points in {"JPEG": 20, "PNG": 20, "GIF": 6, "BMP": 6, "WEBP": 6, "TIFF": 6}.items():
        data = encoded(painted(), kind)
        for point in range(1, points + 1):
            cut = max(12, len(data) * point // (points + 1))
            cases[f"{point:02d}.{kind.lower()}"] = (data[:cut], kind)
    progressive = encoded(painted(), "JPEG", progressive=True)
    cases["progressive.jpeg"] = (progressive[: len(progressive) // 2], "truncated JPEG")
    return cases


def _modes() -> Cases:
    rgb, cases = painted(), {}
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        cases[f"{mode}.png"] = (encoded(rgb.convert(mode), "PNG"), USED)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        cases[f"{mode}.bmp"] = (encoded(rgb.convert(mode), "BMP"), USED)
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"):
        cases[f"{mode}.tif"] = (encoded(rgb.convert(mode), "TIFF"), USED)
    for mode in ("L", "RGB", "CMYK"):
        cases[f"{mode}.jpg"] = (encoded(rgb.convert(mode), "JPEG"), USED)
    for way in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        cases[f"{way}.tif"] = (encoded(rgb, "TIFF", compression=way), USED)
    cases["group4.tif"] = (encoded(rgb.convert("1"), "TIFF", compression="group4"), USED)
    cases["big.tif"] = (encoded(rgb, "TIFF", big_tiff=True), USED)
    cases["progressive.jpg"] = (encoded(rgb, "JPEG", progressive=True), USED)
    cases["444.jpg"] = (encoded(rgb, "JPEG", subsampling=0), USED)
    adobe = segment(0xEE, b"Adobe\0\x64\0\0\0\0\0")
    cases["adobe-rgb.jpg"] = (with_segments(encoded(rgb, "JPEG"), adobe), USED)
    cases["lossless.webp"] = (encoded(rgb, "WEBP", lossless=True), USED)
    cases["alpha.webp"] = (encoded(rgb.convert("RGBA"), "WEBP"), USED)
    cases["grey.gif"] = (encoded(rgb.convert("L"), "GIF"), USED)
    cases["transparent.gif"] = (encoded(rgb.quantize(16), "GIF", transparency=3), USED)
    cases["transparent.png"] = (
        encoded(rgb.quantize(16), "PNG", transparency=bytes(range(16))),
        USED,
    )
    cases["key.png"] = (encoded(rgb, "PNG", transparency=(1, 2, 3)), USED)
    return cases | _deep_modes()


def _deep_modes() -> Cases:
    grey16 = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) * 300
    big = grey16.astype(">u2")
    four = np.repeat(big[..., None], 4, axis=-1)
    no_range = "no defined range"
    grey8 = (grey16 >> 8).astype(np.uint8)
    return {
        "grey16.png": (encoded(Image.fromarray(grey16), "PNG"), USED),
        "rgb16.png": (png(16, 12, 16, 2, rows(four[..., :3])), USED),
        "greyalpha16.png": (png(16, 12, 16, 4, rows(four[..., :2])), USED),
        "rgba16.png": (png(16, 12, 16, 6, rows(four)), USED),
        "key16.png": (png(16, 12, 16, 0, rows(big), chunk(b"tRNS", b"\x01\x2c")), USED),
        "interlaced.png": (png(16, 12, 8, 0, adam7(grey8), interlaced=1), USED),
        "grey16.tif": (encoded(Image.fromarray(grey16), "TIFF"), USED),
        "integer32.tif": (encoded(Image.fromarray(grey16.astype(np.int32)), "TIFF"), no_range),
        "float32.tif": (encoded(Image.fromarray(grey16.astype(np.float32)), "TIFF"), no_range),
        "grey16-white-is-0.tif": (
            encoded(Image.fromarray(grey16), "TIFF", tiffinfo={262: 0}),
            "16-bit grey where 0 is white",
        ),
        "depth-3.png": (png(16, 12, 3, 0, rows(big)), "PNG"),
    }


def _animations() -> Cases:
    frames = [painted(seed=seed) for seed in range(3)]
    cases = {
        f"three.{kind.lower()}": (
            encoded(frames[0], kind, save_all=True, append_images=frames[1:]),
            USED,
        )
        for kind in ("GIF", "PNG", "WEBP", "TIFF")
    }
    film = cases["three.gif"][0]
    cases["later-frame-cut.gif"] = (film[:-500], USED)
    apng = cases["three.png"][0]
    lie = apng.replace(apng[33:53], chunk(b"acTL", struct.pack(">II", 1 << 31, 0)))
    cases["frames-lie.png"] = (lie, USED)
    mpo = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    cases["three.jpg"] = (mpo, USED)
    cases["later-frame-cut.jpg"] = (mpo[:-500], USED)
    cases["motion-photo.jpg"] = (encoded(frames[0], "JPEG") + b"\0\0\0\x18ftypmp42" * 100, USED)
    return cases


def _orientations() -> Cases:
    return {
        f"{value}.{kind.lower()}": (encoded(painted(), kind, exif=oriented(value)), USED)
        for kind in ("JPEG", "PNG", "WEBP", "TIFF")
        for value in range(1, 9)
    }


def _broken_metadata() -> Cases:
    jpeg, still, web = (encoded(painted(), kind) for kind in ("JPEG", "PNG", "WEBP"))
    exif = {
        "empty": b"",
        "text": b"no directory at all",
        "far": b"II*\0\xff\xff\xff\x7f",
        "many": b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 8,
        "ninety-nine": oriented(99),
        "loop": b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
    }
    cases = {}
    for name, block in exif.items():
        bare = block.removeprefix(b"Exif\0\0")
        marked = b"Exif\0\0" + bare
        cases[f"exif-{name}.jpg"] = (with_segments(jpeg, segment(0xE1, marked)), USED)
        cases[f"exif-{name}.png"] = (with_chunks(still, chunk(b"eXIf", bare)), USED)
        cases[f"exif-{name}.webp"] = (encoded(painted(), "WEBP", exif=marked), USED)
    icc = segment(0xE2, b"ICC_PROFILE\0")
    numbers = segment(0xE2, b"ICC_PROFILE\0\x09\x02noise")
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><unclosed")
    bomb = zlib.compress(bytes(70_000_000))
    jump = struct.pack("<HHII", 700, 1, 1 << 30, 0xFFFFFF00)
    cases |= {
        "icc-short.jpg": (with_segments(jpeg, icc), USED),
        "icc-numbers.jpg": (with_segments(jpeg, numbers), USED),
        "icc-noise.webp": (encoded(painted(), "WEBP", icc_profile=b"noise"), USED),
        "icc-noise.jpg": (encoded(painted(), "JPEG", icc_profile=b"noise" * 99), USED),
        "icc-noise.tif": (encoded(painted(), "TIFF", icc_profile=b"noise"), USED),
        "icc-not-deflated.png": (with_chunks(still, chunk(b"iCCP", b"n\0\0noise")), USED),
        "icc-bomb.png": (with_chunks(still, chunk(b"iCCP", b"n\0\0" + bomb)), USED),
        "text-bomb.png": (with_chunks(still, chunk(b"zTXt", b"k\0\0" + bomb)), USED),
        "checksum.png": (with_chunks(still, chunk(b"gAMA", bytes(4))[:-1] + b"x"), USED),
        "xmp.jpg": (with_segments(jpeg, xmp), USED),
        "xmp.png": (with_chunks(still, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<\xff")), USED),
        "photoshop.jpg": (
            with_segments(jpeg, segment(0xED, b"Photoshop 3.0\0" + b"8BIM" * 9)),
            USED,
        ),
        "mpf.jpg": (with_segments(jpeg, segment(0xE2, b"MPF\0II*\0\xff\xff\xff\xff")), USED),
        "comment.jpg": (with_segments(jpeg, segment(0xFE, bytes(60_000))), USED),
        "xmp-far.tif": (_with_tag(encoded(painted(), "TIFF"), jump), USED),
        "trailing.webp": (web + b"noise", USED),
        "trailing.png": (still + b"noise" * 99, USED),
        "trailing.jpg": (jpeg + b"noise" * 99, USED),
    }
    return cases


def _with_tag(tiff: bytes, entry: bytes) -> bytes:
    """Put a tag at the end of a TIFF's directory, moved to the end of the file."""
    start = struct.unpack_from("<I", tiff, 4)[0]
    count = struct.unpack_from("<H", tiff, start)[0]
    entries = tiff[start + 2 : start + 2 + 12 * count] + entry
    directory = struct.pack("<H", count + 1) + entries + bytes(4)
    return tiff[:4] + struct.pack("<I", len(tiff)) + tiff[8:] + directory


def _sizes() -> Cases:
    cases: Cases = {
        f"1x1.{kind.lower()}": (encoded(painted(1, 1), kind), USED)
        for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
    }
    for width, height in ((1, 20_000), (20_000, 1), (2, 9999)):
        cases[f"{width}x{height}.png"] = (encoded(painted(width, height), "PNG"), USED)
    cases["1x20000.jpg"] = (encoded(painted(1, 20_000), "JPEG"), USED)
    cases["0x0.png"] = (png(0, 0, 8, 0, b""), "PNG")
    cases["0x9.gif"] = (b"GIF89a" + struct.pack("<HHBBB", 0, 9, 0, 0, 0) + b";", "GIF")
    line = MAX_SIDE + 1
    cases["line.png"] = (png(line, 1, 1, 0, bytes(line)), "too elongated")
    cases["pole.png"] = (png(1, line, 1, 0, bytes(2 * line)), "too elongated")
    return cases


MAX_SIDE = 64_000_000 // SIZE


def _bombs() -> Cases:
    limit = "over the limit of 64"
    jpeg, gif, bmp = (bytearray(encoded(painted(), kind)) for kind in ("JPEG", "GIF", "BMP"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_000, 65_000)
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    bmp[18:26] = struct.pack("<ii", 1 << 20, 1 << 10)
    canvas = (
        struct.pack("<I", 0)[:4] + struct.pack("<I", 16_000)[:3] + struct.pack("<I", 16_000)[:3]
    )
    web = b"WEBPVP8X" + struct.pack("<I", 10) + canvas
    tiff = encoded(Image.new("1", (11_000, 11_000)), "TIFF", compression="group4")
    return {
        "declared.png": (png(60_000, 60_000, 8, 6, b""), limit),
        "declared-most.png": (png(2**31 - 1, 2**31 - 1, 16, 6, b""), limit),
        "declared.jpg": (bytes(jpeg), limit),
        "declared.gif": (bytes(gif), limit),
        "declared.bmp": (bytes(bmp), limit),
        "declared.webp": (b"RIFF" + struct.pack("<I", len(web)) + web, limit),
        "real.png": (png(9000, 9000, 1, 0, bytes(1126 * 9000)), "81.0 megapixels, over the limit"),
        "real.tif": (tiff, "121.0 megapixels, over the limit"),
        "within.png": (png(7900, 8000, 1, 0, bytes(989 * 8000)), USED),
        "declared-within.png": (png(8000, 8000, 8, 6, bytes(1000)), "truncated PNG"),
        "more-data-than-declared.png": (png(8, 8, 8, 0, bytes(50_000_000)), USED),
        "scans.jpg": (_scans(3000), "3000 scans"),
        "overlapping.tif": (_overlapping_strips(5000), "overlap"),
    }


def _scans(count: int) -> bytes:
    data = encoded(painted(), "JPEG", progressive=True)
    first, last = data.index(b"\xff\xda"), data.rindex(b"\xff\xda")
    before = data.count(b"\xff\xda", first, last)
    return data[:last] + data[last:-2] * (count - before) + data[-2:]


def _overlapping_strips(count: int) -> bytes:
    """A TIFF of 1,000 x 1,000 whose thousands of strips each hold all rows but one."""
    side = 1000
    offsets = struct.pack(f"<{count}I", *(8 + i % 2 for i in range(count)))
    pixels = bytes(side * side + 8)
    tags = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (278, side - 1)]
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
    entries.insert(5, struct.pack("<HHII", 273, 4, count, 8 + len(pixels)))
    start = 8 + len(pixels) + len(offsets)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", start) + pixels + offsets + directory


def _damaged() -> Cases:
    still, jpeg = encoded(painted(), "PNG"), encoded(painted(), "JPEG")
    body = still.index(b"IDAT") + 20
    flipped = still[:body] + bytes([still[body] ^ 0x10]) + still[body + 1 :]
    header = still[:16] + bytes([still[16] ^ 0xFF]) + still[17:]
    half = zlib.decompressobj().decompress(zlib.compress(rows(np.zeros((6, 16), np.uint8))))
    return {
        "flipped.png": (flipped, "PNG"),
        "header-checksum.png": (header, "PNG"),
        "no-data.png": (still[:33] + chunk(b"IEND", b""), "PNG"),
        "half-the-rows.png": (png(16, 12, 8, 0, half), "truncated PNG"),
        "half-interlaced.png": (png(16, 12, 8, 0, half, interlaced=1), "truncated PNG"),
        "no-end.png": (still[:-12], USED),
        "no-tables.jpg": (jpeg.replace(b"\xff\xdb", b"\xff\xfe"), "JPEG"),
        "no-scan.jpg": (jpeg[: jpeg.index(b"\xff\xda")] + b"\xff\xd9", "JPEG"),
        "two-frames.jpg": (jpeg[:2] + jpeg[jpeg.index(b"\xff\xc0") :], "JPEG"),
        "12-bit.jpg": (jpeg.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), "JPEG"),
        "strips-missing.tif": (_strips_missing(), "TIFF"),
    }


def _strips_missing() -> bytes:
    """A TIFF that declares twice the rows its one strip holds."""
    data = bytearray(encoded(painted(), "TIFF"))
    place = data.index(struct.pack("<HH", 257, 4))
    struct.pack_into("<I", data, place + 8, 72)
    return bytes(data)


def _write_odd_files(folder: Path) -> dict[str, str]:
    """Make what is a matter of the file system: links, pipes, folders, permissions, litter."""
    odd = folder / "odd"
    (odd / "folder.jpg").mkdir(parents=True)
    for name in ("folder.jpg/inside.png", "good.png", "closed.png", ".hidden.png", "._good.png"):
        (odd / name).write_bytes(encoded(painted(), "PNG"))
    for name in ("Thumbs.db", "desktop.ini", "notes.txt"):
        (odd / name).write_bytes(b"litter")
    (odd / "closed.png").chmod(0)
    os.mkfifo(odd / "pipe.jpg")
    _bind(odd / "socket.png")
    links = {
        "loop": "..",
        "itself.png": "itself.png",
        "there.png": "back.png",
        "back.png": "there.png",
        "broken.png": "nowhere.png",
        "same.png": "good.png",
        "out.png": "/etc/passwd",
        "outside": "../..",
        "null.jpg": "/dev/null",
        "pipe-link.jpg": "pipe.jpg",
    }
    for name, target in links.items():
        (odd / name).symlink_to(target)
    outcomes = {
        "folder.jpg/inside.png": USED,
        "good.png": USED,
        "same.png": USED,
        "closed.png": USED if os.geteuid() == 0 else "cannot be read: Permission denied",
        "pipe.jpg": "not a regular file",
        "pipe-link.jpg": "not a regular file",
        "socket.png": "not a regular file",
        "out.png": "outside the dataset",
        "outside": "outside the dataset",
        "null.jpg": "outside the dataset",
        "loop": GONE,
        ".hidden.png": GONE,
        "._good.png": GONE,
        "Thumbs.db": GONE,
        "desktop.ini": GONE,
        "notes.txt": GONE,
        **dict.fromkeys(("itself.png", "there.png", "back.png", "broken.png"), "broken link"),
    }
    return {f"odd/{name}": outcome for name, outcome in outcomes.items()}


def _bind(place: Path) -> None:
    """Leave a socket's name behind (made where its path is short enough for one)."""
    here = Path.cwd()
    os.chdir(place.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(place.name)
    finally:
        os.chdir(here)


# --- the fuzzer ----------------------------------------------------------------------------------


@cache
def seeds() -> tuple[bytes, ...]:
    """Return the pictures to start from: the small ones of the corpus that are decoded."""
    cases = (case for group in byte_cases().values() for case in group.values())
    return tuple(data for data, outcome in cases if outcome == USED and len(data) < 20_000)


def mutant(seed: int, index: int) -> bytes:
    """Return the fuzzer's picture of this number; the same for the same seed, alone or in a row."""
    rng = random.Random(f"{seed}/{index}")
    data = bytearray(rng.choice(seeds()))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        rng.choice(MUTATIONS)(data, rng)
    return bytes(data)


def _flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(min(len(data), rng.choice((1, 1, 3, 30)))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _splice(data: bytearray, rng: random.Random) -> None:
    other = rng.choice(seeds())
    start, stop = sorted(rng.randrange(len(other) + 1) for _ in range(2))
    at = rng.randrange(len(data) + 1)
    data[at : at + rng.choice((0, stop - start))] = other[start:stop]


def _edit_header(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(4, 64)
        data[at : at + 1] = rng.randbytes(1)


def _lie_about_lengths(data: bytearray, rng: random.Random) -> None:
    """Put an extreme number where a length, a count or an offset may be."""
    lies = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, len(data), len(data) - 1)
    lie, order, width = rng.choice(lies), rng.choice((">", "<")), rng.choice(("H", "I"))
    number = struct.pack(order + width, lie & (0xFFFF if width == "H" else 0xFFFFFFFF))
    marks = [
        b"IDAT",
        b"PLTE",
        b"tRNS",
        b"IHDR",
        b"\xff\xc0",
        b"\xff\xc4",
        b"\xff\xda",
        b"VP8",
        b"ALPH",
    ]
    found = [at for at in (data.find(mark) for mark in marks) if at >= 4]
    near = rng.choice(found) + rng.choice((-4, 2, 4)) if found else rng.randrange(len(data) + 1)
    at = near if rng.random() < 0.5 else rng.randrange(len(data) + 1)
    data[at : at + len(number)] = number


def _repeat(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    piece = data[start : start + rng.choice((1, 12, 100, 1000))]
    data[start:start] = piece * rng.choice((1, 3, 20))


def _blank(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    piece = data[start : start + rng.choice((1, 4, 50))]
    data[start : start + len(piece)] = rng.choice((b"\0", b"\xff")) * len(piece)


def _cut_out(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data) + 1)
    del data[start : start + rng.choice((1, 2, 12, 200))]


def _mend_checksums(data: bytearray, _: random.Random) -> None:
    """Make a PNG's checksums true again, so that what was changed before is looked at."""
    at = 8
    while data[:4] == b"\x89PNG" and at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            return
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip_bits,
    _truncate,
    _splice,
    _edit_header,
    _lie_about_lengths,
    _repeat,
    _blank,
    _cut_out,
    _mend_checksums,
)


def outcomes(seed: int, start: int, stop: int) -> Iterator[tuple[int, str, float]]:
    """Decode a range of the fuzzer's pictures: number, reason or `USED`, seconds."""
    for index in range(start, stop):
        data = mutant(seed, index)
        began = time.perf_counter()
        try:
            assert decode(data, SIZE).shape == (SIZE, SIZE, 3)
            reason = USED
        except UnreadableImageError as error:
            reason = str(error)
        yield index, reason, time.perf_counter() - began


def main(seed: int, start: int, stop: int, seconds: float = 20) -> None:
    """Decode a range under a watchdog that no C code can outwait, and print the sum."""
    faulthandler.enable()
    sys.stderr.write(f"seed {seed}, picture ")
    seeds()
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before = _kib("VmRSS")
    kinds: Counter[str] = Counter()
    slowest = (0.0, -1)
    results = outcomes(seed, start, stop)
    for index in range(start, stop):
        sys.stderr.write(f"{index} ")
        sys.stderr.flush()
        faulthandler.dump_traceback_later(seconds, exit=True)
        _, reason, took = next(results)
        kinds[re.sub(r"[:,].*|[0-9.]+ ", "", reason) or "used"] += 1
        slowest = max(slowest, (took, index))
    faulthandler.cancel_dump_traceback_later()
    summary = {"kib_before": before, "kib_peak": _kib("VmHWM"), "kinds": kinds}
    summary |= {"slowest_seconds": slowest[0], "slowest": slowest[1]}
    sys.stdout.write(json.dumps(summary) + "\n")


def _kib(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0])


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
