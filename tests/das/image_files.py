"""Image files and colour profiles made by hand, for what no encoder would write."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_GREY, PNG_RGB, PNG_PALETTE, PNG_GREY_ALPHA, PNG_RGBA = 0, 2, 3, 4, 6

DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
ADOBE_GAMMA = 563 / 256


def saved(image: Image.Image | np.ndarray, format: str, **options: object) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int,
    height: int,
    rows: bytes,
    *,
    depth: int = 8,
    colour: int = PNG_RGB,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A PNG of `rows`, packed as the file wants them, each without its filter byte."""
    row = len(rows) // height
    filtered = b"".join(b"\0" + rows[start : start + row] for start in range(0, row * height, max(row, 1)))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        PNG_SIGNATURE
        + png_chunk(b"IHDR", header)
        + before
        + png_chunk(b"IDAT", zlib.compress(filtered))
        + after
        + png_chunk(b"IEND", b"")
    )


def tiff(
    width: int,
    height: int,
    samples: bytes,
    *,
    bits: tuple[int, ...] = (8,),
    photometric: int = 1,
    sample_format: int = 1,
    order: str = "<",
    planar: int = 1,
    more: dict[int, int] | None = None,
) -> bytes:
    """An uncompressed TIFF of one strip (or one per plane)."""
    planes = len(bits) if planar == 2 else 1
    offsets = [8 + index * (len(samples) // planes) for index in range(planes)]
    extras_at = 8 + len(samples)
    extras = b""

    def shorts(values: tuple[int, ...] | list[int], code: str = "H") -> tuple[int, bytes]:
        nonlocal extras
        packed = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(packed) <= 4:
            return len(values), packed.ljust(4, b"\0")
        at = extras_at + len(extras)
        extras += packed
        return len(values), struct.pack(f"{order}I", at)

    entries = {
        256: (4, (1, struct.pack(f"{order}I", width))),
        257: (4, (1, struct.pack(f"{order}I", height))),
        258: (3, shorts(bits)),
        259: (3, shorts((1,))),
        262: (3, shorts((photometric,))),
        273: (4, shorts(offsets, "I")),
        277: (3, shorts((len(bits),))),
        278: (4, (1, struct.pack(f"{order}I", height))),
        279: (4, shorts([len(samples) // planes] * planes, "I")),
        284: (3, shorts((planar,))),
        339: (3, shorts((sample_format,) * len(bits))),
    }
    for tag, value in (more or {}).items():
        entries[tag] = (3, shorts((value,)))
    directory = struct.pack(f"{order}H", len(entries))
    for tag, (kind, (count, value)) in sorted(entries.items()):
        directory += struct.pack(f"{order}HHI", tag, kind, count) + value
    magic = b"II*\0" if order == "<" else b"MM\0*"
    at = extras_at + len(extras)
    return magic + struct.pack(f"{order}I", at) + samples + extras + directory + b"\0\0\0\0"


def rgb_profile(colorants: tuple[tuple[float, ...], ...], gamma: float | None = None) -> bytes:
    """A matrix profile; `colorants` are XYZ under D50. The tone curve is sRGB's unless a gamma is given."""
    curve = _gamma_curve(gamma) if gamma else _srgb_curve()
    tags = {b"wtpt": _xyz(0.9642, 1.0, 0.8249), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    tags |= {
        name: _xyz(*colorant) for name, colorant in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants, strict=True)
    }
    return _profile(b"RGB ", b"mntr", b"XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile(
        b"GRAY", b"mntr", b"XYZ ", {b"wtpt": _xyz(0.9642, 1.0, 0.8249), b"kTRC": _gamma_curve(gamma)}
    )


def cmyk_profile_of_grey_inks() -> bytes:
    """A printing profile whose cyan, magenta and yellow each halve the lightness and whose black is black."""
    ramp = bytes(range(256))
    nodes = bytearray()
    for cyan in (0, 1):
        for magenta in (0, 1):
            for yellow in (0, 1):
                for black in (0, 1):
                    lightness = 0 if black else 255 * 0.5 ** (cyan + magenta + yellow)
                    nodes += bytes((round(lightness), 128, 128))
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + bytes(nodes) + ramp * 3
    return _profile(b"CMYK", b"prtr", b"Lab ", {b"wtpt": _xyz(0.9642, 1.0, 0.8249), b"A2B0": table})


def _profile(space: bytes, kind: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"made for a test\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        b"cprt": b"text\0\0\0\0" + text,
        **tags,
    }
    table, body = struct.pack(">I", len(tags)), b""
    at = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = at + len(body)
    header = struct.pack(">I4sI", size, b"lcms", 0x02400000) + kind + space + connection
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)  # the D50 white of every connection space
    return header.ljust(128, b"\0") + table + body


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def _gamma_curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def _srgb_curve() -> bytes:
    points = [round(65535 * srgb_to_linear(index / 1023)) for index in range(1024)]
    return b"curv\0\0\0\0" + struct.pack(">I1024H", 1024, *points)


def srgb_to_linear(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def linear_to_srgb(value: float) -> float:
    return value * 12.92 if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
