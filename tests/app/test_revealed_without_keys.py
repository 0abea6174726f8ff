"""A daily budget of works where no key is needed: all who come without one share it, and no cache hands works on."""

from typing import Any

import pytest

from das.index import AttributionIndex
from jobs.settings import Settings


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"revealed_works_per_day": 2})


def test_a_thumbnail_is_for_who_paid_for_it(client: Any, tiny_index: Any) -> None:
    """A cache that many share would show it to others, whose looks then take from no budget."""
    ids = AttributionIndex.open(tiny_index).works.column("id")
    for work_id in ids[:2]:
        shown = client.get(f"/v1/works/{work_id}/thumbnail")
        assert (shown.status_code, shown.headers["cache-control"]) == (200, "private, max-age=600")
    assert client.get(f"/v1/works/{ids[2]}/thumbnail").status_code == 429
