"""Whole numbers of JSON bodies."""

from typing import Any

from pydantic import BeforeValidator


def as_whole(number: Any) -> Any:
    """A float without a fraction as the integer that it is to JSON; anything else as it is."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


WHOLE = BeforeValidator(as_whole)
"""Beside a strict int: takes 60.0 too, which to JSON Schema is the integer 60 and which some languages write so.

It stands after the bounds (`Annotated[int, Field(ge=1, strict=True), WHOLE]`): else the description loses them."""
