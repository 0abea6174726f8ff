"""Configurations of training tools as plain values: within a size, without repeated keys, of the right types."""

import json
import tomllib
from pathlib import Path
from typing import Any

from das.errors import WorksError
from das.folder import open_file
from das.metadata import without_duplicates

MAX_BYTES = 64 << 20
"""Of a JSON file, which may describe every picture of a set."""
_MAX_CONFIGURATION_BYTES = 1 << 20
_MAX_ALIASES = 100
_MAX_FILE_NAME = 1_000
"""Characters. Systems allow a few more, but a sentence that quotes such a name isn't read."""


def read_document(path: Path) -> Any:
    """A `.toml`, `.json`, `.yaml` or `.yml` as values; raises WorksError where it isn't one."""
    limit = MAX_BYTES if path.suffix == ".json" else _MAX_CONFIGURATION_BYTES
    try:
        with open_file(path) as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise WorksError(f"{path} has more than {limit:,} bytes; is it a configuration?")
        text = data.decode("utf-8-sig")
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix == ".json":
            return json.loads(text, object_pairs_hook=without_duplicates)
        return _yaml(path, text)
    except OSError as error:
        raise WorksError(f"{path} can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        said = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise WorksError(f"{path} isn't {path.suffix[1:].upper()}: {said}") from error


def _yaml(path: Path, text: str) -> Any:
    try:
        import yaml
    except ModuleNotFoundError:
        raise WorksError(f"{path} is YAML, which needs PyYAML: pip install pyyaml") from None

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Plain values, few aliases, no key twice."""

        aliases = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                self.aliases += 1
                if self.aliases > _MAX_ALIASES:
                    raise ValueError(f"it has more than {_MAX_ALIASES} aliases")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            names = [key.value for key, _ in node.value if isinstance(key.value, str) and key.value != "<<"]
            if len(set(names)) != len(names):
                raise ValueError(f"a key is there twice, among {', '.join(names)[:100]}")
            made: dict[Any, Any] = super().construct_mapping(node, deep)
            return made

    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())) from error


class Section:
    """One mapping of a configuration; its values are asked for by name and type."""

    def __init__(self, value: Any, place: str, beneath: tuple["Section", ...] = ()) -> None:
        """`beneath` are sections that say what this one doesn't."""
        if not isinstance(value, dict):
            raise WorksError(f"{place} is {type(value).__name__}, not a mapping of names to values.")
        self._values = value
        self._beneath = beneath
        self.place = place

    def get(self, name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """A value of a type, or the default; raises WorksError for another type."""
        value = self._values.get(name)
        if value is None:
            for other in self._beneath:
                if other.has(name):
                    return other.get(name, kind, default)
            return default
        wrong_bool = (
            isinstance(value, bool)
            and kind is not bool
            and bool not in (kind if isinstance(kind, tuple) else ())
        )
        if wrong_bool or not isinstance(value, kind):
            raise WorksError(f"{self.place} has {name} = {repr(value)[:100]}, which isn't of the right type.")
        return value

    def file_name(self, name: str, default: str | None = None) -> str | None:
        """A text that names a file or folder, or ends such names; raises WorksError where none can be called so."""
        said: str | None = self.get(name, str, default)
        if said is not None and ("\0" in said or len(said) > _MAX_FILE_NAME):
            raise WorksError(
                f"{self.place} has {name} = {repr(said)[:100]}, and no file is called so: it has {len(said):,}"
                f" characters (at most {_MAX_FILE_NAME:,}, and no NUL)."
            )
        return said

    def has(self, name: str) -> bool:
        """Whether it says something of a name."""
        return self._values.get(name) is not None

    def sections(self, name: str, *beneath: "Section") -> list["Section"]:
        """A list of mappings; none where there is none."""
        found = self.get(name, list, [])
        return [
            Section(one, f"{self.place}, {name} {number}", beneath) for number, one in enumerate(found, 1)
        ]
