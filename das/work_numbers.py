"""The numbers of works that estimators ask for besides inner products, read from an index once."""

from collections.abc import Callable

import numpy as np

from das.index import AttributionIndex
from das.manifest import KernelRecord
from das.methods import Quantity


class WorkNumbers:
    """Those of one index."""

    def __init__(self, index: AttributionIndex) -> None:
        self._index = index
        self._read: dict[tuple[str, ...], np.ndarray] = {}

    def of(self, name: Quantity, kernel: KernelRecord) -> np.ndarray:
        """A number of every work, (N,), for a kernel of the index."""
        index, features, form = self._index, kernel.features, kernel.form
        match name:
            case "repeats":
                return index.repeats
            case "content_repeats":
                return index.content_repeats
            case "residuals":
                return index.residual_weights
            case "leverage":
                # Of a work as a whole: the block kernel sums T features of each.
                summed = len(index.manifest.timesteps) if form == "block" else 1
                return summed * self._once(index.leverage, features, form)
            case "solved_norms":
                return self._once(index.solved_norms, features, form)
            case "norms":
                return self._once(index.norms, features)
            case "query_norms":
                raise ValueError("query_norms are the query's, not the works'")

    def _once(self, read: Callable[..., np.ndarray], *key: str) -> np.ndarray:
        whole = (read.__name__, *key)
        if whole not in self._read:
            self._read[whole] = read(*key)
        return self._read[whole]
