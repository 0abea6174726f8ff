"""The signals in a work's own file: XMP's `plus:DataMining`, and C2PA's assertions on training and mining.

Files are strangers' even where the folder is one's own, so this is called in a decoder process.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from PIL import Image, TiffImagePlugin

from das.images.declared.credentials import assertions, carries_manifest, lineage, read_report
from das.images.normalise import quiet_pillow
from das.rights.values import Tdm, from_plus, strictest

MAX_XMP = 1_000_000
"""Bytes of a packet; a longer one isn't read."""
_DATA_MINING = "{http://ns.useplus.org/ldf/xmp/1.0/}DataMining"
_RESOURCE = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}resource"
_TIFF_XMP = 700
_PNG_XMP = b"XML:com.adobe.xmp"
_PNG_HEAD = 200
"""Bytes of a text's keyword and language, at most."""
_ASSERTIONS = ("cawg.training-mining", "c2pa.training-mining")
_ENTRIES: dict[str, Tdm] = {
    "data_mining": "prohibited",
    "ai_training": "prohibited-ai",
    "ai_inference": "unspecified",
    "ai_generative_training": "prohibited-generative-ai",
}


def may_carry_signals(data: bytes) -> bool:
    """Whether a file may carry any: the names of the fields are in it, unpacked. Costs a search through the bytes."""
    return b"DataMining" in data or (carries_manifest(data) and b"training-mining" in data)


def signal_of(data: bytes, format: str) -> Tdm | None:
    """The strictest signal in a file; None if it has none, or they can't be read."""
    found = [xmp_signal(packet) for packet in _packets(data, format)]
    if carries_manifest(data) and (report := read_report(data, format)) is not None:
        found.append(c2pa_signal(report))
    return strictest(found)


def xmp_signal(packet: bytes) -> Tdm | None:
    """What an XMP packet says under `plus:DataMining`, as attribute, text or resource."""
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    if len(packet) > MAX_XMP or b"DataMining" not in packet:
        return None
    try:
        root = fromstring(packet.strip(b"\0 \r\n\t"), forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, RecursionError):
        return None
    said: list[str] = []
    for element in root.iter():
        said.append(element.get(_DATA_MINING, ""))
        if element.tag == _DATA_MINING:
            said += [element.text or "", element.get(_RESOURCE, "")]
    return strictest(from_plus(value) for value in said)


def c2pa_signal(report: Mapping[str, Any]) -> Tdm | None:
    """What the assertions of a file's manifests say, those of pictures that it was made from too."""
    found: list[Tdm | None] = []
    for manifest in lineage(report):
        for data in assertions(manifest, *_ASSERTIONS):
            entries = data.get("entries")
            found += _said(entries) if isinstance(entries, dict) else []
    return strictest(found)


def _said(entries: Mapping[str, Any]) -> Iterator[Tdm | None]:
    for name, entry in entries.items():
        value = _ENTRIES.get(str(name).rpartition(".")[2])
        use = entry.get("use") if isinstance(entry, dict) else None
        if value is None or value == "unspecified":
            continue  # what the picture may be used for otherwise is no matter of training
        if use == "notAllowed":
            yield value
        elif use == "constrained":
            yield "constrained"
        elif use == "allowed":
            yield "allowed"


def _png_packets(data: bytes) -> Iterator[bytes]:
    """The texts of a PNG that hold XMP and aren't packed, before and behind the pixels, without decoding these."""
    at = 8
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind in (b"iTXt", b"tEXt") and length <= MAX_XMP + _PNG_HEAD:
            keyword, _, text = data[at + 8 : at + 8 + length].partition(b"\0")
            if keyword == _PNG_XMP and kind == b"tEXt":
                yield text
            elif keyword == _PNG_XMP and text[:1] == b"\0":
                # A flag and a method of packing, then a language and the keyword in it, each ended by a NUL.
                yield text[2:].split(b"\0", 2)[-1]
        at += 12 + length


def _packets(data: bytes, format: str) -> Iterable[bytes]:
    if b"DataMining" not in data:
        return
    if format == "PNG":
        # Pillow knows those behind the pixels only once it has decoded them.
        yield from _png_packets(data)
        return
    try:
        with quiet_pillow(), Image.open(io.BytesIO(data), formats=[format]) as image:
            packet = image.info.get("xmp")
            if packet is None and isinstance(image, TiffImagePlugin.TiffImageFile):
                packet = image.tag_v2.get(_TIFF_XMP)
    except Exception:  # noqa: BLE001 (hostile files make the plugins raise anything; the picture itself is read apart)
        return
    if isinstance(packet, str):
        packet = packet.encode("utf-8", "replace")
    if isinstance(packet, bytes):
        yield packet
