"""The sealed report inside a PDF that `das` drew, also after it was signed: one attached file of JSON.

No PDF library is there to read with, and little is needed: `das` and the library that signs write a plain table of
objects, one for all. What another program has written over is refused.
"""

import re
import zlib

from das.errors import EvidenceError

MAGIC = b"%PDF-"
_END = re.compile(rb"startxref\s+(\d{1,10})\s+%%EOF\s*\Z")
_TABLE = re.compile(rb"xref\s+0 \d{1,8}\s+")
_ENTRY = re.compile(rb"(\d{10}) \d{5} ([nf])\s+")
_STREAM = re.compile(rb"\s*\d+ \d+ obj\s*(<<.{0,2000}?>>)\s*stream\r?\n", re.DOTALL)
_JSON_FILE = (re.compile(rb"/Type\s*/EmbeddedFile\b"), re.compile(rb"/Subtype\s*/application#2Fjson\b"))
_LENGTH = re.compile(rb"/Length\s+(\d{1,10})(?!\s+\d+\s+R)")
_PACKED = re.compile(rb"/Filter\s*\[?\s*/FlateDecode\b")


def attached(pdf: bytes, most_bytes: int) -> bytes:
    """The one file of JSON in a PDF.

    Args:
        most_bytes: what it may have unpacked.

    Raises:
        EvidenceError: there is none or several, or another program changed the PDF.
    """
    end = _END.search(pdf, max(0, len(pdf) - 1024))
    table = None if end is None else _TABLE.match(pdf, int(end[1]))
    if end is None or table is None or b"/Prev" in pdf[int(end[1]) :]:
        raise EvidenceError("The PDF isn't as das writes it: another program changed it or made it.")
    found = []
    at = table.end()
    while entry := _ENTRY.match(pdf, at):
        at = entry.end()
        stream = _STREAM.match(pdf, int(entry[1])) if entry[2] == b"n" else None
        if stream is not None and all(kind.search(stream[1]) for kind in _JSON_FILE):
            found.append(stream)
    if len(found) != 1:
        count = "no report" if not found else f"{len(found)} files of JSON, where one should be"
        raise EvidenceError(f"The PDF has {count} attached to it.")
    return _unpacked(pdf, found[0], most_bytes)


def _unpacked(pdf: bytes, stream: re.Match[bytes], most_bytes: int) -> bytes:
    length = _LENGTH.search(stream[1])
    if length is None or _PACKED.search(stream[1]) is None:
        raise EvidenceError("The report in the PDF isn't packed as das packs it.")
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(pdf[stream.end() : stream.end() + int(length[1])], most_bytes)
    except zlib.error as error:
        raise EvidenceError("The report in the PDF is damaged.") from error
    if not unpacking.eof:
        raise EvidenceError("The report in the PDF is cut off, or too large to be one.")
    return data
