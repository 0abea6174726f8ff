"""Pictures side by side, a labelled row for each estimator: what a counterfactual looks like."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from measure.pictures import as_pixels

CELL, GAP, FONT_SIZE = 64, 4, 14
PAPER, INK = (255, 255, 255), (26, 25, 22)


def contact_sheet(rows: Sequence[tuple[str, np.ndarray]]) -> Image.Image:
    """One image of labelled rows.

    Args:
        rows: a label and its pictures (n, C, H, W) in [-1, 1]; all rows with equal n, H and W. Small pictures are
            enlarged by a whole factor, so that a pixel stays a pixel.
    """
    count, _, height, width = rows[0][1].shape
    factor = max(1, round(CELL / max(height, width)))
    height, width = factor * height, factor * width
    font = ImageFont.load_default(FONT_SIZE)
    left = GAP + max(int(font.getlength(label)) for label, _ in rows) + 3 * GAP
    sheet = Image.new("RGB", (left + count * (width + GAP), GAP + len(rows) * (height + GAP)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, (label, pictures) in enumerate(rows):
        top = GAP + row * (height + GAP)
        draw.text((GAP, top + height // 2), label, INK, font, anchor="lm")
        for column, pixels in enumerate(as_pixels(pictures)):
            picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(picture, (left + column * (width + GAP), top))
    return sheet
