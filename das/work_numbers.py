"""The numbers of works that estimators ask for besides inner products."""

import numpy as np

from das.index import AttributionIndex
from das.manifest import KernelRecord
from das.methods import Quantity


def work_number(
    index: AttributionIndex, name: Quantity, kernel: KernelRecord, rows: np.ndarray | slice
) -> np.ndarray:
    """A number of some works, (n,), for a kernel of their index."""
    features, form = kernel.features, kernel.form
    match name:
        case "repeats":
            return index.repeats[rows]
        case "content_repeats":
            return index.content_repeats(rows)
        case "residuals":
            return index.residual_weights[rows]
        case "leverage":
            # Of a work as a whole: the block kernel sums T features of each.
            summed = len(index.manifest.timesteps) if form == "block" else 1
            return summed * index.leverage(features, form)[rows]
        case "solved_norms":
            return index.solved_norms(features, form)[rows]
        case "norms":
            return index.norms(features)[rows]
        case "query_norms":
            raise ValueError("query_norms are the query's, not the works'")
