"""Reading back what a PDF of fpdf2 says: the text of its pages in their order, and the tree for screen readers."""

import re
import zlib

_OBJECT = re.compile(rb"\n(\d+) 0 obj\n(<<.*?\n>>)\n(?:stream\n(.*?)\nendstream\n)?endobj", re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


def objects(pdf: bytes) -> dict[int, tuple[bytes, bytes]]:
    """Each object's dictionary and unpacked stream, by number."""
    found = {}
    for number, head, stream in _OBJECT.findall(pdf):
        packed = b"/FlateDecode" in head and b"/Image" not in head
        found[int(number)] = (head, zlib.decompress(stream) if packed else stream)
    return found


def pages(pdf: bytes) -> list[str]:
    """The text of each page, a line for each piece that was drawn."""
    found = objects(pdf)
    letters = {}
    for _, stream in found.values():
        if b"beginbfchar" in stream:
            for glyph, text in re.findall(rb"<([0-9A-F]{4})> <([0-9A-F]+)>", stream):
                letters[int(glyph, 16)] = bytes.fromhex(text.decode()).decode("utf-16-be")
    told = []
    for head, _ in found.values():
        if b"/Type /Page\n" not in head:
            continue
        (contents,) = re.findall(rb"/Contents (\d+) 0 R", head)
        drawn = re.findall(rb"\(((?:\\.|[^\\)])*)\) Tj", found[int(contents)][1], re.DOTALL)
        told.append("\n".join(_read(text, letters) for text in drawn))
    return told


def _read(text: bytes, letters: dict[int, str]) -> str:
    plain = _ESCAPED.sub(lambda match: {b"r": b"\r", b"n": b"\n"}.get(match[1], match[1]), text)
    codes = [int.from_bytes(plain[place : place + 2], "big") for place in range(0, len(plain), 2)]
    return "".join(letters[code] for code in codes)


def tags(pdf: bytes) -> list[str]:
    """The kinds of the pieces that a screen reader finds, in its order."""
    return [
        kind[1].decode()
        for head, _ in objects(pdf).values()
        if b"/Type /StructElem" in head and (kind := re.search(rb"/S /(\w+)", head))
    ]
