"""How quality depends on the sketch's dimension and on the number of timesteps, from one set of features."""

from itertools import chain
from typing import Any

from das.methods import ACTIVATION
from measure.methods import REFERENCE, Variant
from measure.rows import Comparison
from measure.scores import Study
from measure.truth import GroundTruth

SMALLEST_DIMENSION = 64
FEWEST_TIMESTEPS = (1, 2, 3, 5)
CURVES = (
    Variant("trak", ("loss",)),
    REFERENCE,
    *(
        Variant("das-block", probes, normalised=True)
        for probes in (("loss",), (ACTIVATION,), ("loss", "random"), ("loss", ACTIVATION))
    ),
)


def dimensions(largest: int) -> list[int]:
    """Halves of the dimension down to `SMALLEST_DIMENSION`, smallest first."""
    found = [largest]
    while found[-1] % 2 == 0 and found[-1] // 2 >= SMALLEST_DIMENSION:
        found.append(found[-1] // 2)
    return found[::-1]


def fewer(timesteps: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The first few timesteps, which have least noise, then every other one, then all."""
    first = [timesteps[:count] for count in FEWEST_TIMESTEPS if count < len(timesteps)]
    return [*first, *([timesteps[::2]] if len(timesteps) > 3 else []), timesteps]


def curve_rows(study: Study[GroundTruth]) -> list[dict[str, Any]]:
    """Rows with `varied`: "dimension" or "timesteps"; each is held against the paper's DAS with the same ones."""
    options = study.options
    narrowings = {
        "dimension": [(options.timesteps, dimension) for dimension in dimensions(options.dimension)],
        "timesteps": [(timesteps, options.dimension) for timesteps in fewer(options.timesteps)],
    }
    # One comparison for each choice, so that the paper's DAS is measured once with it.
    comparisons = {
        choice: Comparison(study.narrowed(*choice), REFERENCE)
        for choice in chain.from_iterable(narrowings.values())
    }
    return [
        {**comparisons[choice].row(variant), "varied": varied}
        for variant in CURVES
        for varied, choices in narrowings.items()
        for choice in choices
    ]
