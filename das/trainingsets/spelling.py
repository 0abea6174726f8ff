"""Rows of any metadata in the format's own spelling: names of columns, captions, repeats."""

from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from das.errors import WorksError

TEXT_COLUMNS = ("title", "creator", "rights_holder", "licence", "source_url", "prompt", "group")
CAPTION_COLUMNS = ("prompt", "text", "caption")
"""Where a row has several of them the first one is the prompt."""
MAX_REPEATS = 1_000_000

_NAMES = ("creator", "rights_holder")
_ALIASES = {"artist": "creator", "author": "creator", "url": "source_url"}
_KNOWN = {*TEXT_COLUMNS, *CAPTION_COLUMNS, *_ALIASES, "license", "repeats", "file_name", "path"}
_BLANKS = " \t\r\n\f\v\u00a0\u200b\ufeff"
_SHOWN = 100


class Spelled(NamedTuple):
    """A row in the format's spelling, the column that its prompt came from, and what was decided about it."""

    values: dict[str, Any]
    caption: str | None
    notes: tuple[tuple[str, str], ...]
    """Codes and messages of remarks."""


def column_name(name: str) -> str:
    """A header without the blanks around it, and in small letters where the format knows it."""
    bare = name.strip(_BLANKS)
    return bare.lower() if bare.lower() in _KNOWN else bare


def spelled(row: dict[str, Any], place: str) -> Spelled:
    """The row in the format's spelling; a column the format keeps for itself becomes `source_…`.

    NaN, which pandas writes where there is nothing, is left out as null is; as a number of repeats it is refused.

    Raises:
        WorksError: two columns say different things of one, one that is text holds what is none, or `repeats` isn't
            a whole number from 1.
    """
    values: dict[str, Any] = {}
    for name, value in row.items():
        bare = column_name(str(name))
        if _is_nothing(value) and bare != "repeats":
            continue
        if bare in values and values[bare] != value:
            raise WorksError(f"{place} says {_shown(bare)} twice; keep one.")
        values[bare] = value
    if "license" in values:
        if values.get("licence", values["license"]) != values["license"]:
            raise WorksError(f"{place} has both license and licence, and they differ; keep one.")
        values["licence"] = values.pop("license")
    for alias, name in _ALIASES.items():
        if alias in values and name not in values:
            values[name] = values.pop(alias)
    for name in ("id", "file", "digest"):
        if name in values:
            values[f"source_{name}"] = values.pop(name)
    caption, notes = _take_caption(values)
    for name in TEXT_COLUMNS:
        value = _single(name, values.pop(name, None), place)
        if value is None:
            continue
        values[name] = _text(name, value, place)
        if name in _NAMES and isinstance(value, int | float):
            message = f"its {name} is the number {value}; is that a class whose name isn't in the metadata?"
            notes.append(("number-as-name", message))
    if "repeats" in values:
        values["repeats"] = whole_repeats(values["repeats"], place)
    return Spelled(values, caption, tuple(notes))


def _take_caption(values: dict[str, Any]) -> tuple[str | None, list[tuple[str, str]]]:
    """Make the first caption that a row has its `prompt`; a second that says the same is dropped."""
    notes: list[tuple[str, str]] = []
    found = [name for name in CAPTION_COLUMNS if values.get(name) is not None]
    if not found:
        return None, notes
    taken = found[0]
    caption = values[taken] if taken == "prompt" else values.pop(taken)
    if isinstance(caption, list | tuple):
        if len(caption) > 1:
            message = f"{taken} is a list of {len(caption):,} captions; the first is taken"
            notes.append(("caption-chosen", message))
        caption = caption[0] if caption else ""
    values["prompt"] = None if _is_nothing(caption) else caption
    for other in found[1:]:
        if values[other] == caption:
            del values[other]
        else:
            notes.append(("caption-chosen", f"{taken} and {other} differ; {taken} is taken"))
    return taken, notes


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float | Decimal) and value != value)


def _single(name: str, value: Any, place: str) -> Any:
    """The value of a column, of a list of one that one; raises WorksError where there are several."""
    if not isinstance(value, list | tuple):
        return value
    found = [one for one in value if not _is_nothing(one)]
    if len(found) <= 1:
        return found[0] if found else None
    joined = " and ".join(found) if all(isinstance(one, str) for one in found) else ""
    advice = f"one text, such as {_shown(joined)}" if joined else "one text"
    if name == "rights_holder":
        advice = "one text; with their parts it is 'Ada Example 60%; Eve Sample 40%'"
    raise WorksError(
        f"{place} has {len(found):,} values of {name}, {_shown(found)}; one is read. Give {advice}."
    )


def _text(name: str, value: Any, place: str) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, bool | dict | list | tuple):
        raise WorksError(
            f"{place} has {name} = {_shown(value)}, which isn't text. Give text, or leave it out."
        )
    return value.strip(_BLANKS) if isinstance(value, str) else str(value)


def whole_repeats(value: Any, place: str) -> int:
    """How often a work was trained on, from a whole number however it is written: 10, 10.0, "10", "1e1".

    Raises:
        WorksError: it isn't one from 1 to `MAX_REPEATS`.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
            raise ValueError
        exact = Decimal(value.strip(_BLANKS) if isinstance(value, str) else value)
        if not exact.is_finite() or not 1 <= exact <= MAX_REPEATS or exact != exact.to_integral_value():
            raise ValueError
    except (ValueError, InvalidOperation):
        raise WorksError(
            f"{place} has repeats {_shown(value)}; it is how often the work was trained on, 1 or more"
            f" (at most {MAX_REPEATS:,})."
        ) from None
    return int(exact)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
