"""A report as a PDF/A-3 with its sealed data inside. Runs in a process of its own; see `app.report.drawing`."""

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from fpdf import FPDF
from PIL import Image

from app.report.blocks import Bullets, Cell, Content, Facts, Figure, Paragraph, Run, Table
from app.report.glyphs import Glyphs

FONT = Path(__file__).parent / "fonts" / "DejaVuSans.ttf"
ATTACHED = "report.json"
"""What the sealed data is called inside the PDF."""

# Millimetres, on A4.
_MARGIN, _FOOT = 18.0, 20.0
_GAP, _CELL_GAP = 2.0, 1.2
_SUBJECT_SIDE, _WORK_SIDE = 60.0, 18.0
# Points.
_TITLE, _HEADING, _TEXT, _NOTE = 15.0, 12.0, 9.5, 7.5
_LEADING = 1.35 * 25.4 / 72
"""Millimetres from line to line for each point of size."""
_SHOWN_SIDE = 1024
"""Pixels of a picture in here; the digest says which one it is."""
_LONGEST_LINE = 400
"""Characters of a text in a table, so that a row fits on a page: somebody may call a work by ten thousand."""


class _Report(FPDF):
    """Pages that are broken where this file says, with every piece of text tagged for those who have it read out."""

    def __init__(self, content: Content, made_at: datetime) -> None:
        super().__init__(format="A4", enforce_compliance="PDF/A-3B")
        # What is replaced by the number of pages would be so in a work's title, too.
        self.alias_nb_pages(None)  # type: ignore[arg-type]
        self.add_font("text", fname=str(FONT))
        self._glyphs = Glyphs(self.fonts["text"].cmap)  # type: ignore[union-attr]
        self._tagged: Counter[int] = Counter()
        self.set_title(content.name)
        self.set_lang(content.language)
        self.set_creation_date(made_at)
        self.set_xmp_metadata(_metadata(content, made_at))
        self.set_margins(_MARGIN, _MARGIN)
        self.c_margin = 0
        self.set_auto_page_break(False)
        self.set_font("text", size=_TEXT)
        self.add_page()

    @property
    def replaced(self) -> bool:
        """Whether characters were written as code points."""
        return self._glyphs.replaced

    @contextmanager
    def tagged(self, kind: str, alternative: str | None = None) -> Iterator[None]:
        """What is drawn in here, on one page, is one piece of this kind for a screen reader."""
        place = self._tagged[self.page]
        self._tagged[self.page] += 1
        self._add_marked_content(struct_type=f"/{kind}", mcid=place, alt_text=alternative)
        self._out(f"/{kind} <</MCID {place}>> BDC")
        yield
        self._out("EMC")

    def room(self, height: float) -> bool:
        """Begin a new page if so many millimetres don't fit on this one; whether one was begun."""
        if self.y + height <= self.h - _FOOT or self.y <= self.t_margin:
            return False
        self.add_page()
        return True

    def broken(self, text: str, size: float, width: float) -> list[str]:
        """A text's lines within a width."""
        self.set_font_size(size)
        lines = self.multi_cell(width, text=self._glyphs.shown(text), dry_run=True, output="LINES")
        return list(lines)  # type: ignore[arg-type]

    def text_block(
        self, text: str, size: float = _TEXT, kind: str = "P", indent: float = 0.0, keep: float = 0.0
    ) -> None:
        """A text over the width of the page, from line to line and page to page.

        Args:
            keep: millimetres below it that have to be on the same page.
        """
        lines = self.broken(text, size, self.epw - indent)
        height = size * _LEADING
        self.room(min(len(lines), 2) * height + keep)
        while lines:
            fitting = max(1, int((self.h - _FOOT - self.y) / height + 1e-6))
            with self.tagged(kind):
                for line in lines[:fitting]:
                    self.set_font_size(size)
                    self.set_x(self.l_margin + indent)
                    self.cell(self.epw - indent, height, line, new_x="LMARGIN", new_y="NEXT")
            lines = lines[fitting:]
            if lines:
                self.add_page()

    def head(self, text: str) -> None:
        """A section's heading, with an entry in the outline."""
        self.ln(2 * _GAP)
        self.room(30.0)
        self.start_section(text)
        self.text_block(text, _HEADING, "H2")
        self.rule(0.3)

    def rule(self, width: float) -> None:
        """A line under what was drawn, which says nothing."""
        self._out("/Artifact BMC")
        self.set_draw_color(150)
        self.set_line_width(width)
        self.line(self.l_margin, self.y + 0.4, self.w - self.r_margin, self.y + 0.4)
        self._out("EMC")
        self.ln(_CELL_GAP)

    def picture(self, data: bytes, x: float, y: float, side: float, alternative: str) -> float:
        """A picture within a square; returns its height in millimetres."""
        with Image.open(io.BytesIO(data)) as opened:
            scale = side / max(opened.size)
            width, height = opened.width * scale, opened.height * scale
            if opened.format == "JPEG" and opened.mode in ("RGB", "L") and max(opened.size) <= _SHOWN_SIDE:
                source: Any = io.BytesIO(data)
            else:
                source = opened.convert("RGB")
                source.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
        with self.tagged("Figure", self._glyphs.shown(alternative)):
            self.image(source, x, y, width, height)
        return height

    def sealed(self, foot: Sequence[str]) -> None:
        """Write the seal and the number on each page, now that it is known how many there are."""
        last = self.pages_count
        for page in range(1, last + 1):
            self.page = page
            self.current_font_is_set_on_page = False
            self.set_font("text", size=_NOTE)
            self._out("/Artifact BMC")
            self.set_xy(self.l_margin, self.h - _FOOT + 4)
            for line in (foot[0], f"{foot[1]}; page {page} of {last}"):
                self.cell(self.epw, _NOTE * _LEADING, self._glyphs.shown(line), new_x="LMARGIN", new_y="NEXT")
            self._out("EMC")

    def table(self, table: Table, pictures: Mapping[str, bytes]) -> None:  # type: ignore[override]
        """A table whose rows stay on one page each, with its headings on every page."""
        weights = [column.weight for column in table.columns]
        widths = [self.epw * weight / sum(weights) for weight in weights]
        heads = tuple(Cell((Run(column.title),)) for column in table.columns)
        numeric = [column.numeric for column in table.columns]
        self.row(heads, widths, numeric, pictures, {})
        self.rule(0.2)
        for cells in table.rows:
            said = ". ".join(run.text for cell in cells for run in cell.lines[:2])[:_LONGEST_LINE]
            height = self.row_height(cells, widths, pictures)
            if self.room(height + _CELL_GAP):
                self.row(heads, widths, numeric, pictures, {})
                self.rule(0.2)
            named = {cell.picture: said for cell in cells if cell.picture is not None}
            self.row(cells, widths, numeric, pictures, named)
            self.rule(0.1)

    def row_height(
        self, cells: Sequence[Cell], widths: Sequence[float], pictures: Mapping[str, bytes]
    ) -> float:
        """Millimetres of a row."""
        heights = [0.0]
        for cell, width in zip(cells, widths, strict=True):
            lines = sum(len(self._cut(run, width)) * _size(run) * _LEADING for run in cell.lines)
            heights.append(lines + (_WORK_SIDE if cell.picture in pictures else 0.0))
        return max(heights)

    def row(
        self,
        cells: Sequence[Cell],
        widths: Sequence[float],
        numeric: Sequence[bool],
        pictures: Mapping[str, bytes],
        named: Mapping[str, str],
    ) -> None:
        """One row of a table from here down."""
        top, x, bottom = self.y, self.l_margin, self.y
        for cell, width, right in zip(cells, widths, numeric, strict=True):
            y = top
            if cell.picture is not None and cell.picture in pictures:
                y += self.picture(pictures[cell.picture], x, y, _WORK_SIDE, named[cell.picture])
            for run in cell.lines:
                lines = self._cut(run, width)
                if not any(lines):
                    continue
                with self.tagged("P"):
                    for line in lines:
                        self.set_font_size(_size(run))
                        self.set_xy(x, y)
                        self.cell(width - _GAP, _size(run) * _LEADING, line, align="R" if right else "L")
                        y += _size(run) * _LEADING
            bottom, x = max(bottom, y), x + width
        self.set_xy(self.l_margin, bottom)

    def _cut(self, run: Run, width: float) -> list[str]:
        text = self._glyphs.shown(run.text)
        cut = (
            text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]} … ({len(run.text):,} characters)"
        )
        return self.broken(cut, _size(run), width - _GAP)


def drawn(content: Content, pictures: Mapping[str, bytes], data: bytes, made_at: datetime) -> bytes:
    """The PDF: the same bytes for the same arguments.

    Args:
        pictures: by the names that `content` gives them, as files; those that are missing aren't shown.
        data: the sealed report, which is put into it as `ATTACHED`.
        made_at: stands in the file as when it was made.
    """
    pdf = _Report(content, made_at)
    pdf.text_block(content.title, _TITLE, "H1")
    pdf.ln(_GAP)
    for sentence in content.lead:
        pdf.text_block(sentence)
        pdf.ln(_GAP)
    for section in content.sections:
        pdf.head(section.title)
        for block in section.blocks:
            _block(pdf, block, pictures)
    if pdf.replaced:
        pdf.head("Characters that aren't drawn")
        pdf.text_block(
            "What stands between ⟨ and ⟩ are Unicode code points of characters that aren't visible, or that can't be"
            f" drawn properly with the font of this file; {ATTACHED} in it has them as they are."
        )
    pdf.sealed(content.foot)
    pdf.embed_file(
        bytes=data,
        basename=ATTACHED,
        mime_type="application/json",
        associated_file_relationship="Source",
        desc="The sealed report that this document is drawn from",
        creation_date=made_at,
        modification_date=made_at,
        compress=True,
    )
    return bytes(pdf.output())


def _block(pdf: _Report, block: Any, pictures: Mapping[str, bytes]) -> None:
    match block:
        case Paragraph():
            pdf.text_block(block.text)
        case Bullets():
            for item in block.items:
                pdf.text_block(f"• {item}", kind="LI", indent=2.0)
        case Facts():
            for fact in block.entries:
                said = "".join(run.text for run in fact.runs)
                pdf.text_block(fact.term, _NOTE, keep=_TEXT * _LEADING)
                pdf.text_block(said)
                pdf.ln(_CELL_GAP)
        case Figure() if block.name in pictures:
            pdf.room(_SUBJECT_SIDE)
            height = pdf.picture(pictures[block.name], pdf.l_margin, pdf.y, _SUBJECT_SIDE, block.alternative)
            pdf.set_xy(pdf.l_margin, pdf.y + height)
        case Table():
            pdf.table(block, pictures)
    pdf.ln(_GAP)


def _size(run: Run) -> float:
    return _NOTE if run.exact else _TEXT


def _metadata(content: Content, made_at: datetime) -> str:
    """The XMP of the file. fpdf2 would write its own with the time of now, and no two files would be alike."""
    at = made_at.isoformat(timespec="seconds")
    title = escape(re.sub(r"[\x00-\x1f\ud800-\udfff]", "", content.name))
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"'
        ' xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:pdfaid="http://www.aiim.org/pdfa/ns/id/"'
        f' xmp:CreateDate="{at}" xmp:ModifyDate="{at}" xmp:MetadataDate="{at}">'
        "<pdfaid:part>3</pdfaid:part><pdfaid:conformance>B</pdfaid:conformance>"
        f'<dc:title><rdf:Alt><rdf:li xml:lang="x-default">{title}</rdf:li></rdf:Alt></dc:title>'
        f"<dc:language><rdf:Bag><rdf:li>{escape(content.language)}</rdf:li></rdf:Bag></dc:language>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
