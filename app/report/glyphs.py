"""Text that one font can draw. What it can't is told by its code points: nothing vanishes, or is drawn wrong."""

import re
import unicodedata
from collections.abc import Container

_BLANK = re.compile(r"\s+")
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
# Written from right to left, and for the most part with letters that join: it takes a shaper to draw them.
_OTHER_WAY = ("R", "AL", "AN")


class Glyphs:
    """The characters of a font, and whether a text needed others."""

    def __init__(self, known: Container[int]) -> None:
        """`known` has the code points that the font has glyphs of."""
        self._known = known
        self.replaced = False

    def shown(self, text: str) -> str:
        """A text with blanks as single spaces and what can't be drawn as `⟨U+0041 U+0042⟩`."""
        pieces: list[str] = []
        codes: list[str] = []
        for character in _BLANK.sub(" ", unicodedata.normalize("NFC", text)):
            if self._draws(character):
                pieces += _codes(codes)
                codes.clear()
                pieces.append(character)
            else:
                codes.append(f"U+{ord(character):04X}")
        pieces += _codes(codes)
        return "".join(pieces)

    def _draws(self, character: str) -> bool:
        draws = (
            ord(character) in self._known
            and unicodedata.category(character) not in _UNSEEN
            and unicodedata.bidirectional(character) not in _OTHER_WAY
        )
        self.replaced |= not draws
        return draws


def _codes(codes: list[str]) -> list[str]:
    return [f"⟨{' '.join(codes)}⟩"] if codes else []
