"""What the API's description says of a value beyond what its type tells, and where it can't be null."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

FORM = "multipart/form-data"
NULL = {"type": "null"}


@dataclass(frozen=True)
class Described:
    """An annotation of a type: how its values are written, where the code that checks it says so in a sentence."""

    pattern: str

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(core_schema), "pattern": self.pattern}


def without_nulls(document: dict[str, Any]) -> None:
    """Take null out of an OpenAPI document where it can't be sent: of parameters and of forms, whose values are text.

    What may be null in Python is what may be left out there.
    """
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                parameter["schema"] = _not_null(parameter["schema"])
    schemas = document["components"]["schemas"]
    for name in set(_forms(document)):
        properties = schemas[name]["properties"]
        for field, schema in properties.items():
            properties[field] = _not_null(schema)


def _forms(document: dict[str, Any]) -> Iterator[str]:
    """The names of the schemas of forms."""
    for operations in document["paths"].values():
        for operation in operations.values():
            content = operation.get("requestBody", {}).get("content", {})
            if FORM in content:
                yield content[FORM]["schema"]["$ref"].rpartition("/")[2]


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    choices = schema.get("anyOf", [])
    if NULL not in choices:
        return schema
    left = [choice for choice in choices if choice != NULL]
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    if rest.get("default", ...) is None:
        del rest["default"]
    return {**left[0], **rest} if len(left) == 1 else {"anyOf": left, **rest}
