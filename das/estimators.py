"""Estimators: from inner products with the works' features to one score per work (METHOD, sections 2 to 4).

All take `products`: (B, N), `φᵀH⁻¹φ_i` of B queries with N works, or `φᵀφ_i` where a method has no kernel; and give
scores (B, N), larger for more influence. Here `w_i` is how often the model was trained on work i. The kernel counts
every repeat, and what is left for a score to count was measured (docs/decisions/0019): `w_i^⅗` and the leverage for
das-block, nothing but the leverage for the paper's DAS, and `w_i` for scores that are linear in the work's feature.
One that normalises the feature has no say for it.

Works with the same bytes and prompt are one content. `W_i` is the sum of `w_j` over those of work i: the content has
the score of one work with `W_i` repeats, and each of them its part `w_i / W_i`.
"""

import numpy as np

REPEATS_POWER = 0.6
"""Of a work's repeats in front of its das-block score, see docs/decisions/0019."""


def das_block_scores(
    products: np.ndarray, leverage: np.ndarray, repeats: np.ndarray, content_repeats: np.ndarray
) -> np.ndarray:
    """DAS-block, `w_i^⅗ (φᵀH⁻¹φ_i)² / (1 - w_i h_i)` with the block kernel (METHOD, section 4).

    But for the power that is the rise of the predictive variance `φᵀH⁻¹φ` when `w_i T φ_iφ_iᵀ` is taken out of the
    kernel: work i with all its repeats, as though its T features were alike. They aren't quite, so the kernel holds
    more than is taken out, and `w_i h_i < 1`.

    Args:
        products: (B, N).
        leverage: `h_i = T φ_iᵀH⁻¹φ_i`, (N,).
        repeats: `w_i`, (N,).
        content_repeats: `W_i`, (N,).
    """
    weights = (
        content_repeats**REPEATS_POWER * (repeats / content_repeats) / (1.0 - content_repeats * leverage)
    )
    scores: np.ndarray = np.square(products) * weights
    return scores


def das_scores(
    products: np.ndarray,
    leverage: np.ndarray,
    residuals: np.ndarray,
    repeats: np.ndarray,
    content_repeats: np.ndarray,
) -> np.ndarray:
    """The paper's DAS, `( φᵀH⁻¹φ_i · r_i / (1 - w_i h_i) )²` (Eq. 16 and 18; METHOD, section 2).

    Args:
        products: (B, N), with the kernel of averages.
        leverage: `h_i = φ_iᵀH⁻¹φ_i`, (N,); `W_i h_i < 1` by construction of the kernel.
        residuals: `r_i`, (N,), see `residual_weights`.
        repeats: `w_i`, (N,).
        content_repeats: `W_i`, (N,).
    """
    weights = residuals / (1.0 - content_repeats * leverage)
    scores: np.ndarray = np.square(products * weights) * (repeats / content_repeats)
    return scores


def residual_weights(residual_rms: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    """`r_i = mean_t( RMS(r_t(x_i)) / mean_j RMS(r_t(x_j)) )`, (N,), from the RMS values (N, T).

    Dimensionless, comparable across timesteps, and growing with the work's own residual. The mean over works counts
    a work as often as it was trained on, `repeats` (N,).
    """
    weights: np.ndarray = (residual_rms / np.average(residual_rms, axis=0, weights=repeats)).mean(axis=1)
    return weights


def product_scores(products: np.ndarray) -> np.ndarray:
    """The inner products themselves, of likenesses, in which repeats have no say.

    Args:
        products: (B, N).
    """
    return products


def dot_scores(products: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    """`w_i φᵀφ_i` (gradient, TracInCP), or `w_i φᵀH⁻¹φ_i` (TRAK, D-TRAK, Journey TRAK).

    Args:
        products: (B, N).
        repeats: `w_i`, (N,).
    """
    scores: np.ndarray = products * repeats
    return scores


def cosine_scores(products: np.ndarray, query_norms: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """`φᵀφ_i / (‖φ‖ ‖φ_i‖)`, of gradients (GAS), embeddings or pixels; 0 where one of them is zero.

    Args:
        products: (B, N).
        query_norms: `‖φ‖`, (B,).
        norms: `‖φ_i‖`, (N,).
    """
    return _over(products, query_norms[:, None] * norms)


def relative_influence_scores(products: np.ndarray, solved_norms: np.ndarray) -> np.ndarray:
    """Relative influence, `φᵀH⁻¹φ_i / ‖H⁻¹φ_i‖`: a work's effect on the query for its effect on everything.

    Args:
        products: (B, N).
        solved_norms: `‖H⁻¹φ_i‖`, (N,).
    """
    return _over(products, solved_norms)


def renormalised_influence_scores(products: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Renormalised influence, `φᵀH⁻¹φ_i / ‖φ_i‖`.

    Args:
        products: (B, N).
        norms: `‖φ_i‖`, (N,).
    """
    return _over(products, norms)


def _over(products: np.ndarray, norms: np.ndarray) -> np.ndarray:
    whole = np.broadcast_to(norms, products.shape)
    quotients: np.ndarray = np.divide(products, whole, out=np.zeros_like(products), where=whole > 0)
    return quotients
