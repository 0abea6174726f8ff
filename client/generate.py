"""`python client/generate.py`: write those files of das_client that are made of others.

`models.py` is made of docs/openapi.json, and what waits, such as `client.py`, of what awaits, such as
`async_client.py`. A test compares.
"""

import json
import keyword
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

HERE = Path(__file__).parent
PACKAGE = HERE / "das_client"
DOCUMENT = HERE.parent / "docs" / "openapi.json"
HEAD = '''"""{what} Made by client/generate.py of {source}; don't edit."""
'''
IMPORTS = """
from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypedDict

from pydantic import Field

from das_client.model import Model
"""
REFERENCE = "#/components/schemas/"
# Fields whose names a pydantic model has for itself.
RENAMED = {"copy": "copied"}
# Requests whose fields a method takes by name: the class that is made, the schema, and what the method takes itself.
OPTIONS = (
    ("AskOptions", "AttributionForm", ("image", "image_url"), "The API's fields beside a picture."),
    ("BacktestOptions", "BacktestRequest", ("cursor",), "What a backtest looks at."),
    ("ShareOptions", "ShareRequest", (), "What a link leaves out, and for how long it is open."),
    ("KeyOptions", "KeyRequest", ("name", "scopes"), "What else may be said of a new key."),
    ("WebhookChanges", "EndpointChange", (), "What shall be different about a webhook's endpoint."),
)
WIDTH = 100
SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
# The modules that await, and what each is once it waits.
AWAITING = {
    "async_client.py": "The client that waits.",
    "async_batches.py": "Batches, by a client that waits.",
    "async_endpoints.py": "Endpoints of webhooks, by a client that waits.",
    "async_opt_outs.py": "Opt-outs, by a client that waits.",
    "async_reading.py": "Answers read as their types, by a client that waits.",
    "async_sending.py": "Sending, by a client that waits.",
}
WAITING = (
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsync([A-Z]\w+)", r"\1"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"^import asyncio\n", ""),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\.a(close|read|iter_lines)\b", r".\1"),
    (r"\bdef aclose\b", "def close"),
    (r"das_client\.async_(\w+)", r"das_client.\1"),
)


def models() -> str:
    """The module of models: what answers hold, and the options of requests."""
    schemas = json.loads(DOCUMENT.read_text(encoding="utf-8"))["components"]["schemas"]
    asked = set(_of_requests(json.loads(DOCUMENT.read_text(encoding="utf-8"))))
    parts = [HEAD.format(what="What answers hold.", source="docs/openapi.json"), IMPORTS]
    for name, schema in sorted(schemas.items()):
        if name in asked:
            continue
        parts.append(_class(name, schema) if "properties" in schema else f"\n{name} = {_type(schema)}\n")
    for name, source, left_out, what in OPTIONS:
        fields = [
            f"    {field}: {_type(schema)}\n"
            for field, schema in schemas[source]["properties"].items()
            if field not in left_out
        ]
        parts.append(f'\nclass {name}(TypedDict, total=False):\n    """{what}"""\n\n' + "".join(fields))
    return _formatted("".join(parts), "models.py")


def waiting(source: str, what: str) -> str:
    """A module that waits, of one that awaits."""
    text = (PACKAGE / source).read_text(encoding="utf-8")
    body = text.split('"""', 2)[2]
    for pattern, replacement in WAITING:
        body = re.sub(pattern, replacement, body, flags=re.MULTILINE)
    return _formatted(HEAD.format(what=what, source=source) + body, source.removeprefix("async_"))


def generated() -> dict[Path, str]:
    """Every file that is made, with its content."""
    return {
        PACKAGE / "models.py": models(),
        **{
            PACKAGE / source.removeprefix("async_"): waiting(source, what)
            for source, what in AWAITING.items()
        },
    }


def _of_requests(document: dict[str, Any]) -> Iterator[str]:
    """The names of schemas of bodies that are sent, which answers don't hold."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                schema = content["schema"]
                for choice in schema.get("oneOf", [schema]):
                    if "$ref" in choice:
                        yield choice["$ref"].removeprefix(REFERENCE)


def _class(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    lines = [f"\nclass {name}(Model):\n"]
    if schema.get("description"):
        lines.append(f'    """{_docstring(schema["description"])}"""\n\n')
    for field, kind in schema["properties"].items():
        lines.append(f"    {_field(field, kind, field in required)}\n")
        if kind.get("description"):
            lines.append(f'    """{_docstring(kind["description"])}"""\n')
    if not schema["properties"]:
        lines.append("    pass\n")
    return "".join(lines)


def _field(field: str, schema: dict[str, Any], required: bool) -> str:
    kind = _type(schema)
    name = RENAMED.get(field, field)
    if not name.isidentifier() or keyword.iskeyword(name) or (hasattr(BaseModel, name) and name == field):
        name = re.sub(r"\W", "_", name) + "_"
    nullable = "None" in kind.split(" | ")
    default = None if nullable else schema.get("default", ...)
    if not required and default is ...:
        # An older service may not send it.
        kind, default = f"{kind} | None", None
    shown = "" if default is ... else repr(default)
    if name == field:
        return f"{name}: {kind}" + (f" = {shown}" if shown else "")
    return f"{name}: {kind} = Field({f'default={shown}, ' if shown else ''}alias={field!r})"


def _type(schema: dict[str, Any]) -> str:
    """A schema as a type. A value that isn't among those known today is taken too: the service may be newer."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(REFERENCE)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return _union(_type(choice) for choice in schema[key])
    if "const" in schema:
        return f"Literal[{schema['const']!r}] | str"
    if "enum" in schema:
        return f"Literal[{', '.join(map(repr, schema['enum']))}] | str"
    kind = schema.get("type")
    if isinstance(kind, list):
        return _union(_type({**schema, "type": one}) for one in kind)
    if kind == "array":
        return f"list[{_type(schema.get('items', {}))}]"
    if kind == "object":
        inner = schema.get("additionalProperties", True)
        return f"dict[str, {_type(inner) if isinstance(inner, dict) else 'Any'}]"
    if kind == "string" and schema.get("format") == "date-time":
        return "datetime"
    return SCALARS.get(str(kind), "Any")


def _union(kinds: Iterator[str]) -> str:
    parts = list(dict.fromkeys(part for kind in kinds for part in re.split(r" \| (?![^\[]*\])", kind)))
    return "Any" if "Any" in parts else " | ".join(sorted(parts, key="None".__eq__))


def _docstring(text: str) -> str:
    """A description as a docstring, without the quotes before and after it."""
    told = " ".join(text.split()).replace("\\", "\\\\").replace('"', "'")
    return "\n    ".join(textwrap.wrap(told, WIDTH))


def _formatted(text: str, name: str) -> str:
    # `yield from`, which awaiting code can't have, and the order of what is imported.
    for command in (["check", "--quiet", "--fix-only", "--unsafe-fixes", "--select", "I,UP028"], ["format"]):
        done = subprocess.run(
            [Path(sys.executable).with_name("ruff"), *command, "--stdin-filename", PACKAGE / name, "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        text = done.stdout
    return text


if __name__ == "__main__":
    for target, content in generated().items():
        target.write_text(content, encoding="utf-8")
