"""Reading a policy's file: YAML or JSON as plain values, each with its line, and bounded in every way.

What a few bytes can cost is refused before it costs anything: size, levels, aliases, which YAML would expand.
"""

import json
import math
from dataclasses import dataclass, field
from typing import Any

import yaml

from das.errors import DasError

MAX_BYTES = 64 * 1024
MAX_DEPTH = 16
# Mistakes that are told at once.
REPORTED = 20


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong: where, as a JSON pointer (RFC 6901) and a line where one is known, and what."""

    pointer: str
    line: int | None
    detail: str

    def __str__(self) -> str:
        place = self.pointer or "the policy"
        where = place if self.line is None else f"{place} (line {self.line})"
        return f"{where} {self.detail}"


class PolicyError(DasError):
    """A policy that can't be used. `mistakes` says where, the first of them in the message."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        more = f" ({len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        super().__init__(f"{mistakes[0]}{more}")
        self.mistakes = mistakes[:REPORTED]


@dataclass
class Document:
    """What a file says: plain values, and by JSON pointer the line that each begins on (none for JSON)."""

    values: Any
    lines: dict[str, int] = field(default_factory=dict)

    def line_of(self, pointer: str) -> int | None:
        """The line of a place, or of the nearest around it that is there."""
        while pointer not in self.lines and pointer:
            pointer = pointer.rpartition("/")[0]
        return self.lines.get(pointer)


def pointer_to(*path: str | int) -> str:
    """The JSON pointer to where these keys lead."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def read_text(data: bytes | str) -> Document:
    """The values of a policy's text: JSON where it begins with a brace, YAML otherwise.

    Raises:
        PolicyError: it is too large, too deep, isn't text, has aliases or a key twice, or can't be parsed.
    """
    if len(data) > MAX_BYTES or (isinstance(data, str) and len(data.encode("utf-8", "replace")) > MAX_BYTES):
        raise _whole(
            f"has more than {MAX_BYTES // 1024} KB; name creators by list and leave out what no rule uses."
        )
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data.removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise _whole(f"isn't UTF-8 (byte {error.start}); save it so.") from error
    if not text.strip():
        raise _whole("is empty.")
    return _json(text) if text.lstrip().startswith("{") else _yaml(text)


def read_json(data: bytes, most: int) -> Any:
    """The values of a JSON object of up to `most` bytes, within the bounds of a policy's text otherwise.

    Raises:
        PolicyError: it can't be used.
    """
    if len(data) > most:
        raise _whole(f"has more than {most // 1024} KB.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _whole(f"isn't UTF-8 (byte {error.start}).") from error
    values = _json(text).values
    if not isinstance(values, dict):
        raise _whole("has to be a JSON object.")
    return values


def from_values(values: Any) -> Document:
    """The document of values that were parsed already, within the same bounds.

    Raises:
        PolicyError: they are too many or too deep, or hold what JSON doesn't.
    """
    _check(values, ())
    try:
        size = len(json.dumps(values, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"))
    except ValueError as error:
        raise _whole("has a number that isn't finite.") from error
    if size > MAX_BYTES:
        raise _whole(f"has more than {MAX_BYTES // 1024} KB.")
    return Document(values)


def _whole(detail: str, line: int | None = None) -> PolicyError:
    return PolicyError([Mistake("", line, detail)])


def _json(text: str) -> Document:
    try:
        values = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_whole_number
        )
    except json.JSONDecodeError as error:
        raise _whole(f"isn't JSON: {error.msg} (column {error.colno}).", error.lineno) from error
    except RecursionError as error:
        raise _whole(f"is nested more than {MAX_DEPTH} levels deep.") from error
    except ValueError as error:
        raise _whole(f"can't be read: {error}.") from error
    _check(values, ())
    return Document(values)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key {key[:100]!r} is there twice")
        made[key] = value
    return made


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number that a rule could use")


def _whole_number(digits: str) -> int:
    if len(digits) > 100:
        raise ValueError("a number has more than 100 digits")
    return int(digits)


def _check(value: Any, path: tuple[str | int, ...]) -> None:
    """See that values are bounded, and of kinds that a policy can hold."""
    if len(path) > MAX_DEPTH:
        raise PolicyError(
            [Mistake(pointer_to(*path[:3]), None, f"is nested more than {MAX_DEPTH} levels deep.")]
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise PolicyError([Mistake(pointer_to(*path), None, "isn't a finite number.")])
    if isinstance(value, dict):
        for key, inner in value.items():
            _check(inner, (*path, str(key)))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check(inner, (*path, number))


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain values only. The pure parser, since libyaml's composes in C, where nothing bounds its depth."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        line = self.peek_event().start_mark.line + 1
        if self.check_event(yaml.AliasEvent):
            raise _whole("has an alias (*); write out what it stands for.", line)
        self.depth += 1
        if self.depth > MAX_DEPTH + 1:
            raise _whole(f"is nested more than {MAX_DEPTH} levels deep.", line)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


def _yaml(text: str) -> Document:
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise _whole("is empty.")
        document = Document(None)
        document.values = _value(loader, node, "", document.lines)
        return document
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(part for part in (error.problem, error.context) if part)
        raise _whole(f"isn't YAML: {_short(said)}.", None if mark is None else mark.line + 1) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise _whole(f"isn't YAML: {_short(str(error))}.") from error
    finally:
        if loader is not None:
            loader.dispose()


def _value(loader: _Loader, node: Any, pointer: str, lines: dict[str, int]) -> Any:
    """The plain value of a node; the line of it and of all in it are kept in `lines`."""
    line = node.start_mark.line + 1
    lines[pointer] = line
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
        raise PolicyError([Mistake(pointer, line, f"has the tag {_short(node.tag)}; write it without.")])
    if isinstance(node, yaml.MappingNode):
        made: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag != "tag:yaml.org,2002:str":
                shown = _short(str(key_node.value)) if isinstance(key_node, yaml.ScalarNode) else "a key"
                raise PolicyError(
                    [Mistake(pointer, key_node.start_mark.line + 1, f"has a key that isn't text: {shown}.")]
                )
            key = key_node.value
            if key in made:
                raise PolicyError(
                    [Mistake(pointer, key_node.start_mark.line + 1, f"has the key {key[:100]!r} twice.")]
                )
            made[key] = _value(loader, value_node, pointer + pointer_to(key), lines)
        return made
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, inner, f"{pointer}/{n}", lines) for n, inner in enumerate(node.value)]
    try:
        value = loader.construct_object(node)
    except (ValueError, yaml.YAMLError) as error:
        raise PolicyError(
            [Mistake(pointer, line, "has a value that can't be read; put it in quotes.")]
        ) from error
    if isinstance(value, float) and not math.isfinite(value):
        raise PolicyError([Mistake(pointer, line, "isn't a finite number.")])
    if not isinstance(value, str | int | float | bool | None):
        kind = type(value).__name__
        raise PolicyError([Mistake(pointer, line, f"is read as a {kind}; put it in quotes if it is text.")])
    return value


def _short(text: str) -> str:
    return " ".join(text.split())[:200]
