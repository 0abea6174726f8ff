"""How quality depends on the sketch's dimension and on the number of timesteps, from one set of features."""

from typing import Any

from das.config import ACTIVATION
from das.evaluation.methods import REFERENCE, Candidate
from das.evaluation.study import Study

SMALLEST = 64
FEWEST = (1, 2, 3, 5)
CURVES = (
    Candidate("trak", ("loss",)),
    REFERENCE,
    *(
        Candidate("das-block", probes, normalised=True, form="block")
        for probes in (("loss",), (ACTIVATION,), ("loss", "random"), ("loss", ACTIVATION))
    ),
)


def dimensions(largest: int) -> list[int]:
    """Halves of the dimension down to `SMALLEST`, smallest first."""
    found = [largest]
    while found[-1] % 2 == 0 and found[-1] // 2 >= SMALLEST:
        found.append(found[-1] // 2)
    return found[::-1]


def fewer(timesteps: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The first few timesteps, which have least noise, then every other one, then all."""
    first = [timesteps[:count] for count in FEWEST if count < len(timesteps)]
    return [*first, *([timesteps[::2]] if len(timesteps) > 3 else []), timesteps]


def curve_rows(study: Study) -> list[dict[str, Any]]:
    """Rows with `varied`: "dimension" or "timesteps"; each is held against the paper's DAS with the same ones."""
    options = study.options
    rows = []
    for candidate in CURVES:
        for dimension in dimensions(options.dimension):
            narrow = study.narrowed(options.timesteps, dimension)
            rows.append({**narrow.row(candidate, REFERENCE), "varied": "dimension"})
        for timesteps in fewer(options.timesteps):
            narrow = study.narrowed(timesteps, options.dimension)
            rows.append({**narrow.row(candidate, REFERENCE), "varied": "timesteps"})
    return rows
