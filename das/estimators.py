"""Estimators: from inner products with the whitened features to one score per work.

All take `products`: (B, N), `φᵀH⁻¹φ_i` of B queries with N works; and give scores (B, N), larger for more influence.
Here `w_i` is how often the model was trained on work i.
"""

import numpy as np


def das_block_scores(products: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    """DAS-block, `(w_i φᵀH⁻¹φ_i)²` with the block kernel (METHOD, section 4).

    The square is the rise of the predictive variance `φᵀH⁻¹φ` when work i is left out, to first order; leaving it
    out takes all its repeats along, which scales the change of the parameters by `w_i`.

    Args:
        products: (B, N).
        repeats: `w_i`, (N,).
    """
    return np.square(products * repeats)


def das_scores(
    products: np.ndarray, leverage: np.ndarray, residuals: np.ndarray, repeats: np.ndarray
) -> np.ndarray:
    """The paper's DAS, `( φᵀH⁻¹φ_i · w_i r_i / (1 - w_i h_i) )²` (Eq. 16 and 18; METHOD, section 2).

    Args:
        products: (B, N), with the kernel of averages.
        leverage: `h_i = φ_iᵀH⁻¹φ_i`, (N,); `w_i h_i < 1` by construction of the kernel.
        residuals: `r_i`, (N,), see `residual_weights`.
        repeats: `w_i`, (N,).
    """
    return np.square(products * (repeats * residuals / (1.0 - repeats * leverage)))


def residual_weights(residual_rms: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    """`r_i = mean_t( RMS(r_t(x_i)) / mean_j RMS(r_t(x_j)) )`, (N,), from the RMS values (N, T).

    Dimensionless, comparable across timesteps, and growing with the work's own residual. The mean over works counts
    a work as often as it was trained on, `repeats` (N,).
    """
    return (residual_rms / np.average(residual_rms, axis=0, weights=repeats)).mean(axis=1)
