"""Exposure: the leverage of a work as a percentile of its index."""

import numpy as np

from das.exposure import exposure_of
from das.index import AttributionIndex


def test_it_is_the_part_of_the_works_that_have_less_leverage(tiny_index):
    index = AttributionIndex.open(tiny_index)
    found = exposure_of(index)
    kernels = {(one.features, one.form) for one in index.manifest.kernels if one.form != "none"}
    leverage = sum(index.leverage(*kernel) for kernel in kernels)
    by_hand = [100 * sum(other < own for other in leverage) / len(leverage) for own in leverage]
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)
    assert found.min() == 0
    assert 90 < found.max() < 100


def test_without_a_kernel_it_is_not_known(tiny_index, monkeypatch):
    index = AttributionIndex.open(tiny_index)
    none = [one.model_copy(update={"form": "none"}) for one in index.manifest.kernels]
    monkeypatch.setattr(index, "manifest", index.manifest.model_copy(update={"kernels": none}))
    assert exposure_of(index) is None
