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
    without: tuple[int, ...] = (),
) -> bytes:
    """An uncompressed TIFF of one strip (or one per plane); with `more` tags, and `without` some."""
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
    for tag in without:
        del entries[tag]
    directory = struct.pack(f"{order}H", len(entries))
    for tag, (kind, (count, value)) in sorted(entries.items()):
        directory += struct.pack(f"{order}HHI", tag, kind, count) + value
    magic = b"II*\0" if order == "<" else b"MM\0*"
    at = extras_at + len(extras)
    return magic + struct.pack(f"{order}I", at) + samples + extras + directory + b"\0\0\0\0"


def jpeg_with_more_scans(data: bytes, more: int) -> bytes:
    """A progressive JPEG whose last scan, with its tables, comes `more` times again."""
    last = data.rindex(b"\xff\xc4", 0, data.rindex(b"\xff\xda"))
    return data[:-2] + data[last:-2] * more + data[-2:]


def jpeg_with_segments(data: bytes, segments: bytes) -> bytes:
    """A JPEG with something behind its start marker."""
    return data[:2] + segments + data[2:]


def jpeg_segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(payload)) + payload


def gif_with_blocks(data: bytes, extension: int, blocks: bytes) -> bytes:
    """A GIF of no global palette, or of 256 colours, with an extension before its first frame."""
    at = 13 + (768 if data[10] & 128 else 0)
    return data[:at] + bytes((0x21, extension)) + blocks + b"\0" + data[at:]


def webp_with_chunks(data: bytes, chunks: bytes) -> bytes:
    """An extended WebP with further chunks at its end."""
    return b"RIFF" + struct.pack("<I", len(data) - 8 + len(chunks)) + data[8:] + chunks


def box(kind: bytes, *contents: bytes) -> bytes:
    """A box of an ISO media file."""
    body = b"".join(contents)
    return struct.pack(">I", 8 + len(body)) + kind + body


def avif_of_tiles(tile: bytes, across: int, down: int) -> bytes:
    """An AVIF grid whose tiles all are the picture of `tile`, an AVIF file of one item.

    The tile's coded picture is stored once, and its properties are used again for every tile.
    """
    coded = tile[tile.rindex(b"mdat") + 4 :]
    properties = tile[tile.index(b"ipco") - 4 : tile.index(b"ipma") - 4]
    kinds = [kind for kind in (b"ispe", b"pixi", b"av1C", b"colr") if kind in properties]
    kinds.sort(key=properties.index)
    count = across * down
    width, height = struct.unpack(">II", properties[properties.index(b"ispe") + 8 :][:8])
    whole = box(b"ispe", struct.pack(">III", 0, width * across, height * down))
    properties = box(b"ipco", properties[8:], whole)
    numbers = [1 + kinds.index(kind) for kind in kinds if kind != b"ispe"]
    shared = bytes(number | (128 if kinds[number - 1] == b"av1C" else 0) for number in numbers)
    of_tile = bytes((1 + len(shared), 1 + kinds.index(b"ispe"))) + shared
    of_grid = bytes((2, 1 + len(kinds), 1 + kinds.index(b"pixi")))
    grid = struct.pack(">BBBBHH", 0, 0, down - 1, across - 1, width * across, height * down)
    ids = range(1, count + 2)  # the grid is item 1

    def meta(mdat: int) -> bytes:
        items = [(2, 0, b"grid")] + [(2, 1, b"av01")] * count
        infe = [
            box(b"infe", struct.pack(">BBHHH", version, 0, flags, number, 0) + kind + b"\0")
            for number, (version, flags, kind) in zip(ids, items, strict=True)
        ]
        places = [(mdat, len(grid))] + [(mdat + len(grid), len(coded))] * count
        iloc = b"".join(
            struct.pack(">HHHII", number, 0, 1, *place) for number, place in zip(ids, places, strict=True)
        )
        ipma = struct.pack(">H", 1) + of_grid + b"".join(struct.pack(">H", n) + of_tile for n in ids[1:])
        return box(
            b"meta",
            bytes(4),
            box(b"hdlr", bytes(8) + b"pict" + bytes(13)),
            box(b"pitm", bytes(4) + struct.pack(">H", 1)),
            box(b"iloc", bytes(4) + b"\x44\x00" + struct.pack(">H", count + 1) + iloc),
            box(b"iinf", bytes(4) + struct.pack(">H", count + 1), *infe),
            box(
                b"iref",
                bytes(4),
                box(b"dimg", struct.pack(f">HH{count}H", 1, count, *ids[1:])),
            ),
            box(b"iprp", properties, box(b"ipma", bytes(4) + struct.pack(">I", count + 1) + ipma)),
        )

    start = box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf")
    at = len(start) + len(meta(0)) + 8
    return start + meta(at) + box(b"mdat", grid, coded)


def avif_of_frames(picture: bytes, more: int) -> bytes:
    """An AVIF of one item whose coded frame comes `more` times again, one over the other."""
    at = picture.rindex(b"mdat") + 4
    coded = picture[at:]
    frame, begin = b"", 0
    while begin < len(coded):  # the units, each with its length in one or more bytes
        size, width = 0, 0
        while True:
            byte = coded[begin + 1 + width]
            size |= (byte & 127) << 7 * width
            width += 1
            if byte < 128:
                break
        end = begin + 1 + width + size
        if coded[begin] >> 3 & 15 == 6:
            frame = coded[begin:end]
        begin = end
    longer = coded + frame * more
    old, new = struct.pack(">I", len(coded)), struct.pack(">I", len(longer))
    head = picture[: at - 8]
    assert head.count(old) == 1, "the length stands in iloc alone"
    return head.replace(old, new) + box(b"mdat", longer)


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
