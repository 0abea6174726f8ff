"""The blocks of a file that writers of generated pictures put their notes in: PNG texts, EXIF, hidden bits."""

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import iTXt

from das.images.declared.record import MAX_BLOCK

_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_MAKE, _MODEL, _SOFTWARE, _MAKER_NOTE = 0x010F, 0x0110, 0x0131, 0x927C
_ASCII_TAGS = range(0x0100, 0x0112)
"""Where ComfyUI writes: the model of the camera, and from its make downwards."""

_MAGICS = {
    "alpha": (b"stealth_pnginfo", b"stealth_pngcomp"),
    "rgb": (b"stealth_rgbinfo", b"stealth_rgbcomp"),
}
_MAGIC_BITS = 8 * 15
_LENGTH_BITS = 32


@dataclass(frozen=True)
class Blocks:
    """What a file holds beside its pixels, as text.

    Attributes:
        format: of the file, as "PNG".
        texts: by keyword, those of a PNG.
        comment: EXIF's UserComment.
        exif: the other texts of EXIF, by tag.
        hidden: what lies in the low bits of the pixels, with the name of its form.
    """

    format: str
    texts: Mapping[str, str] = field(default_factory=dict)
    comment: str | None = None
    exif: Mapping[int, str] = field(default_factory=dict)
    hidden: tuple[str, str] | None = None

    @property
    def software(self) -> str:
        """The program that the file names."""
        return self.exif.get(_SOFTWARE, "") or self.texts.get("Software", "")

    @property
    def maker_note(self) -> str:
        """EXIF's MakerNote, where it is text."""
        return self.exif.get(_MAKER_NOTE, "")

    def notes(self, keyword: str) -> Iterator[tuple[str, str]]:
        """Every text that may be under a keyword, with the name of its place: PNG text, UserComment, hidden bits."""
        if keyword in self.texts:
            yield f"PNG text {keyword}", self.texts[keyword]
        if self.comment:
            yield f"{self.format} EXIF UserComment", self.comment
        if self.hidden is not None:
            yield f"{self.hidden[0]} in the low bits of the pixels", self.hidden[1]

    def camera_notes(self) -> Iterator[tuple[str, str]]:
        """The texts of EXIF's fields for a camera, with the names of their places."""
        for tag, text in self.exif.items():
            if tag in _ASCII_TAGS:
                yield f"{self.format} EXIF 0x{tag:04X}", text


def blocks_of(image: Image.Image, data: bytes, format: str) -> Blocks:
    """The blocks of a picture that is loaded, and whose file is `data`. What is damaged is left out."""
    comment, exif = _exif(image)
    return Blocks(
        format="WebP" if format == "WEBP" else format,
        texts=_png_texts(image, data) if format == "PNG" else {},
        comment=comment,
        exif=exif,
        hidden=None if format in ("JPEG", "GIF") else hidden_text(image),
    )


def object_of(text: str) -> dict[str, Any] | None:
    """The JSON object in a text; None if it is none. Nesting is bounded by Python's own recursion limit."""
    start = text.lstrip()[:1]
    if start != "{" or len(text) > MAX_BLOCK:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _png_texts(image: Image.Image, data: bytes) -> dict[str, str]:
    texts = {}
    for name, value in getattr(image, "text", {}).items():
        if isinstance(value, str) and len(value) <= MAX_BLOCK:
            # tEXt is Latin-1 by the standard; many write UTF-8 there all the same.
            texts[str(name)[:80]] = str(value) if isinstance(value, iTXt) else _as_utf8(value)
    for name, value in _animation_notes(data):
        texts.setdefault(name, value)
    return texts


def _as_utf8(value: str) -> str:
    try:
        return str(value) if value.isascii() else value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return str(value)


def _animation_notes(data: bytes) -> Iterator[tuple[str, str]]:
    """The chunks `comf` behind the frames of an animated PNG: a keyword, NUL, Latin-1."""
    if b"comf" not in data:
        return
    at = 8
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"comf" and length <= MAX_BLOCK:
            name, nul, value = data[at + 8 : at + 8 + length].partition(b"\0")
            if nul:
                yield name[:80].decode("latin-1"), _as_utf8(value.decode("latin-1"))
        at += 12 + length


def _exif(image: Image.Image) -> tuple[str | None, dict[int, str]]:
    """UserComment, and the texts of the first directory by tag."""
    comment: str | None = None
    texts: dict[int, str] = {}
    try:
        exif = image.getexif()
        little = exif.endian == "<"
        found = dict(exif.items())
        # Fooocus writes both where EXIF has its main directory.
        for tags in (exif.get_ifd(_EXIF_IFD), found):
            comment = comment or _comment(tags.get(_USER_COMMENT), little)
            if (note := _plain(tags.get(_MAKER_NOTE))) is not None:
                texts[_MAKER_NOTE] = note
        for tag in (*_ASCII_TAGS, _SOFTWARE):
            if (text := _plain(found.get(tag))) is not None:
                texts[tag] = text
    except Exception:  # noqa: BLE001 (a damaged EXIF block raises anything; what was read before stands)
        return comment, texts
    return comment, texts


def _plain(value: object) -> str | None:
    if isinstance(value, bytes) and len(value) <= MAX_BLOCK:
        value = value.rstrip(b"\0").decode("utf-8", "replace")
    return _as_utf8(value) if isinstance(value, str) and len(value) <= MAX_BLOCK else None


def _comment(value: object, little: bool) -> str | None:
    """UserComment: eight bytes that name an encoding, and the text; some write the text alone."""
    if isinstance(value, str):
        return _plain(value)
    if not isinstance(value, bytes) or len(value) > 2 * MAX_BLOCK:
        return None
    code, body = value[:8], value[8:]
    if code == b"UNICODE\0":
        return utf16(body, little).rstrip("\0")
    if code in (b"ASCII\0\0\0", b"\0" * 8):
        return body.rstrip(b"\0").decode("utf-8", "replace")
    if code == b"JIS\0\0\0\0\0":
        return body.rstrip(b"\0").decode("iso2022_jp", "replace")
    return value.rstrip(b"\0").decode("utf-8", "replace")


def utf16(data: bytes, little: bool) -> str:
    """UTF-16 in either byte order: as a mark says, else as its plain letters lie, else as the file's own is."""
    if data.startswith(b"\xff\xfe"):
        return data[2:].decode("utf-16-le", "replace")
    if data.startswith(b"\xfe\xff"):
        return data[2:].decode("utf-16-be", "replace")
    pairs = np.frombuffer(data[: len(data) // 2 * 2], np.uint8).reshape(-1, 2)
    ends, begins = (pairs[:, 1] == 0) & (pairs[:, 0] != 0), (pairs[:, 0] == 0) & (pairs[:, 1] != 0)
    small, big = int(ends.sum()), int(begins.sum())
    if len(pairs) and small == big == 0 and _is_utf8(data):
        return data.decode("utf-8", "replace")  # named wrongly
    order = little if small == big else small > big
    return data.decode("utf-16-le" if order else "utf-16-be", "replace")


def _is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8, which those of a writing without plain letters in UTF-16 hardly are."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def hidden_text(image: Image.Image) -> tuple[str, str] | None:
    """The text in the low bits of a picture's opacity or colours, column by column, and the name of its form.

    Fifteen bytes name the form, 32 bits say how many bits follow; they are UTF-8, packed with gzip or not. Only as
    many columns are looked at as that takes.
    """
    if image.mode not in ("RGB", "RGBA"):
        return None
    for kind in ("alpha", "rgb"):
        if kind == "alpha" and image.mode != "RGBA":
            continue
        magic = _bits(image, kind, 0, _MAGIC_BITS)
        if magic not in _MAGICS[kind]:
            continue
        start = _MAGIC_BITS + _LENGTH_BITS
        length = int.from_bytes(_bits(image, kind, _MAGIC_BITS, _LENGTH_BITS), "big")
        body = _bits(image, kind, start, length // 8 * 8) if length <= 8 * MAX_BLOCK else b""
        if magic.endswith(b"comp"):
            body = _unzipped(body)
        text = body.decode("utf-8", "replace")
        return (magic.decode(), text) if text else None
    return None


def _bits(image: Image.Image, kind: str, start: int, count: int) -> bytes:
    """Low bits from `start` on as bytes; fewer where the picture ends."""
    channels = 1 if kind == "alpha" else 3
    width, height = image.size
    column = height * channels
    first, last = start // column, -(-(start + count) // column)
    if count <= 0 or first >= width:
        return b""
    piece = np.asarray(image.crop((first, 0, min(last, width), height)))
    piece = piece[..., 3:] if kind == "alpha" else piece[..., :3]
    bits = (piece.transpose(1, 0, 2).reshape(-1) & 1)[start - first * column :][:count]
    return np.packbits(bits[: len(bits) // 8 * 8]).tobytes()


def _unzipped(body: bytes) -> bytes:
    """What gzip packed, if it is no more than a block may hold; nothing if it is damaged or more."""
    unpacking = zlib.decompressobj(wbits=31)
    try:
        text = unpacking.decompress(body, MAX_BLOCK)
    except zlib.error:
        return b""
    return b"" if unpacking.unconsumed_tail else text
