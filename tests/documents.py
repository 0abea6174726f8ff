"""The code blocks of the documentation, as a reader meets them: by page and line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROMPT = "$ "
_FENCE = re.compile(r"^( *)```(\S*)\s*$")


@dataclass(frozen=True)
class Block:
    """What stands between two fences. `language` is "" where none is named."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A line at the prompt of a console block, and what the block shows as its output."""

    text: str
    shown: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    opened: tuple[int, str, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is None:
            if fence:
                opened, lines = (number, fence[1], fence[2]), []
        elif fence and not fence[2]:
            found.append(Block(page, opened[0], opened[2], "\n".join(lines)))
            opened = None
        else:
            lines.append(line.removeprefix(opened[1]))
    assert opened is None, f"{page}:{opened and opened[0]}: a block without an end"
    return found


def indented_blocks(page: Path) -> Iterator[str]:
    """Code that is only indented: nothing says what it is."""
    fenced, blank = False, True
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fenced ^= bool(_FENCE.match(line))
        if not fenced and blank and line.startswith("    "):
            yield f"{page.relative_to(ROOT)}:{number}"
        blank = not line.strip()


def commands(block: Block) -> list[Command]:
    """The commands of a console block. A line that ends with a backslash goes on in the next."""
    found: list[list[str]] = []
    goes_on = False
    for line in block.text.splitlines():
        if goes_on:
            found[-1][0] += "\n" + line.removeprefix("> ")
        elif line.startswith(PROMPT):
            found.append([line.removeprefix(PROMPT), ""])
        else:
            assert found, f"{block.place}: a console block begins with a command, after {PROMPT!r}"
            found[-1][1] += line + "\n"
        goes_on = line.endswith("\\")
    return [Command(text, shown) for text, shown in found]
