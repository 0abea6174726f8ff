"""How exposed a work is: its leverage among those of all works of the index.

A work of high leverage has features that few others share, so that answers which name it say the most of it: it is
the easiest to find by asking, and to tell from what is found.
"""

import numpy as np

from das.index import AttributionIndex


def exposure_of(index: AttributionIndex) -> np.ndarray | None:
    """How many percent of the works have less leverage than each, (N,) float32 from 0 to below 100.

    Leverages are added up over the index's kernels; None: no method of the index has one. Reads them anew.
    """
    kernels = {(kernel.features, kernel.form) for kernel in index.manifest.kernels if kernel.form != "none"}
    if not kernels:
        return None
    leverage = np.sum([index.leverage(features, form) for features, form in sorted(kernels)], axis=0)
    below = np.searchsorted(np.sort(leverage), leverage, side="left")
    return np.asarray(100.0 * below / len(leverage), np.float32)
