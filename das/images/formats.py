"""What a file is, told by its first bytes and never by its name."""

from das.errors import ImageRefused

ACCEPTED = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF")
ACCEPTED_IN_WORDS = "JPEG, PNG, WebP, AVIF, GIF or TIFF"

# The first bytes in which markup and text are looked for. Editors put long licence comments before <svg>.
TEXT_WINDOW = 8192

_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# (offset, bytes, what it is in words). Pictures that aren't accepted are "unsupported-format".
_OTHER_PICTURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"BM", "a BMP picture"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"\0\0\x01\0", "a Windows icon"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"v/1\x01", "an OpenEXR picture"),
    (0, b"#?RADIANCE", "a Radiance HDR picture"),
    (0, b"qoif", "a QOI picture"),
    (0, b"DDS ", "a DDS texture"),
    (0, b"gimp xcf", "a GIMP document"),
    (0, b"FUJIFILMCCD-RAW", "a camera raw file"),
    (0, b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
)
_OTHER_FILES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF-", "a PDF document"),
    (0, b"%!PS", "a PostScript document"),
    (0, b"PK\x03\x04", "a zip archive (or an office document, which is one)"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\x1f\x8b", "a gzip-compressed file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"\x1aE\xdf\xa3", "a WebM or Matroska video"),
    (0, b"ID3", "an MP3 recording"),
    (0, b"OggS", "an Ogg recording"),
    (0, b"fLaC", "a FLAC recording"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
    (0, b"SQLite format 3\0", "a SQLite database"),
    (0, b"\x80\x02}", "a pickled Python object"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (257, b"ustar", "a tar archive"),
)


def identify(data: bytes) -> str:
    """The accepted format that `data` is in, by content: one of `ACCEPTED`.

    Raises `ImageRefused` with code "empty", "svg", "unsupported-format" (a picture of another kind) or
    "not-an-image"; the sentence names what the file seems to be.
    """
    if not data:
        raise ImageRefused("empty", "The file is empty. Choose a picture and send it again.")
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF"):
        return _riff(data)
    if data.startswith(_TIFF_STARTS):
        if data[8:10] == b"CR":
            raise _other_picture("a camera raw file (Canon CR2)")
        return "TIFF"
    if data[4:8] == b"ftyp":
        return _iso_media(data)
    for offset, magic, words in _OTHER_PICTURES:
        if data.startswith(magic, offset):
            raise _other_picture(words)
    for offset, magic, words in _OTHER_FILES:
        if data.startswith(magic, offset):
            raise _other_file(words)
    raise _text_or_unknown(data[:TEXT_WINDOW])


def looks_cut_short(data: bytes, format: str) -> bool:
    """Whether a file that couldn't be decoded lacks its end: the person can then be told to send it again."""
    match format:
        case "JPEG":
            return b"\xff\xd9" not in data[-1024:]
        case "PNG":
            return b"IEND" not in data[-1024:]
        case "GIF":
            return not data.rstrip(b"\0").endswith(b";")
        case "WEBP":
            return len(data) < 8 + int.from_bytes(data[4:8], "little")
        case "AVIF":
            return _iso_boxes_cut_short(data)
        case _:
            # The directory of a TIFF may lie anywhere; one that points behind the end was cut.
            order = "little" if data.startswith(b"II") else "big"
            return len(data) < 8 or int.from_bytes(
                data[4:8], "little" if order == "little" else "big"
            ) >= len(data)


def _riff(data: bytes) -> str:
    kind = data[8:12]
    if kind == b"WEBP":
        return "WEBP"
    if kind == b"AVI ":
        raise _other_file("an AVI video")
    if kind == b"WAVE":
        raise _other_file("a WAV recording")
    raise _other_file("a RIFF file")


def _iso_media(data: bytes) -> str:
    """Tell AVIF from HEIC and from film: all three are ISO media files and differ in their brands only."""
    length = min(max(int.from_bytes(data[:4], "big"), 16), 256)
    major = data[8:12]
    brands = {major} | {data[at : at + 4] for at in range(16, min(length, len(data) - 3), 4)}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    if brands & _HEIC_BRANDS:
        raise ImageRefused(
            "unsupported-format",
            "This is a HEIC photo, as phones take them, and that format isn't read here. "
            "Export or share it as JPEG and send that.",
        )
    if major == b"crx ":
        raise _other_picture("a camera raw file (Canon CR3)")
    raise _other_file("a video or an audio recording")


def _iso_boxes_cut_short(data: bytes) -> bool:
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length == 0:
            return False
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16], "big")
        if length < 8:
            return False
        at += length
    return at != len(data)


def _text_or_unknown(start: bytes) -> ImageRefused:
    encoding = "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    text = start.decode(encoding, errors="replace").lstrip("\ufeff").strip().lower()
    if text.startswith(("<!doctype html", "<html", "<head", "<body")):
        return _other_file("a web page (HTML). Perhaps the address led to the page around the picture")
    if text.startswith("<") and ("<svg" in text or "<!doctype svg" in text):
        return ImageRefused(
            "svg",
            "This is an SVG drawing: instructions for drawing, not pixels, and they could run code or fetch "
            f"other files. Export it as PNG and send that. Accepted are {ACCEPTED_IN_WORDS}.",
        )
    if text.startswith(("<?xml", "<")):
        return _other_file("an XML or HTML document")
    if text.startswith("data:image/"):
        return _other_file("a data: address in text form; send the picture's bytes")
    if text.startswith(("{", "[")) and _is_text(text):
        return _other_file("JSON text")
    if _is_text(text):
        return _other_file("plain text")
    return ImageRefused(
        "not-an-image",
        f"This file isn't a picture in any format known here. Accepted are {ACCEPTED_IN_WORDS}.",
    )


def _is_text(text: str) -> bool:
    return "\ufffd" not in text[:-3] and all(c.isprintable() or c in "\r\n\t\f" for c in text)


def _other_picture(words: str) -> ImageRefused:
    return ImageRefused(
        "unsupported-format",
        f"This is {words}, which isn't read here. Save it as {ACCEPTED_IN_WORDS} and send that.",
    )


def _other_file(words: str) -> ImageRefused:
    return ImageRefused("not-an-image", f"This seems to be {words}. Send a picture: {ACCEPTED_IN_WORDS}.")
