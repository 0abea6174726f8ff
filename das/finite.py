"""Numbers that commands take: the bounds of an option let through what isn't a number at all."""

import math

import typer

LARGEST_SEED = 2**63 - 1
"""PyTorch takes no larger one."""


def finite(number: float | None) -> float | None:
    """The callback of every option that is a float; raises typer.BadParameter for nan and infinities."""
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"{number} isn't a number.")
    return number
