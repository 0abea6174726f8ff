"""That works are hidden is said of answers that lack some, and only of those."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from app.catalogue import ServedIndex
from app.redaction import LOOKALIKES, NOTE_CREATORS, NOTE_HOLDERS, NOTE_LOOKALIKES, WITHHELD, told
from app.visibility import Gone, Levels, Shade
from das.index import AttributionIndex
from das.rights.holders import UNKNOWN_HOLDER
from das.works import Works
from jobs.models import Job, JobState, utc_now


@pytest.fixture
def served(tiny_index: Path) -> ServedIndex:
    """The index, of whose works the third and the last have a rights holder, the third two of them."""
    index = AttributionIndex.open(tiny_index)
    holders: list[str | None] = [None] * len(index)
    holders[2], holders[-1] = "Adam  60%; Eve Sample 40%", "Ada"
    table = index.works.table
    column = table.column_names.index("rights_holder")
    index.works = Works(table.set_column(column, "rights_holder", pa.array(holders, pa.string())))
    return ServedIndex(tiny_index, index)


def shade_of(served: ServedIndex, *rows: int) -> Shade:
    hidden = np.zeros(len(served), bool)
    hidden[list(rows)] = True
    return Shade(served, hidden, Levels(served, "public"), Gone())


def answered(served: ServedIndex) -> Job:
    """An answer whose works are the first two, with similarities of one more than are shown."""
    ids = served.index.works.column("id")
    one = {"share": 0.5, "works": 1, "share_of_index": 0.5, "factor": 1.0, "low": None, "high": None}
    creators = [name for name in dict.fromkeys(served.index.works.creators) if name]
    result = {
        "works": [
            {"rank": row + 1, "work_id": ids[row], "score": 1.0, "share": 0.5, "percentile": 9.0} for row in (0, 1)
        ],
        "groups": {
            "creator": [{**one, "name": name} for name in creators],
            "rights_holder": [{**one, "name": name} for name in (UNKNOWN_HOLDER, "Adam", "Eve Sample", "Ada")],
        },
        "candidates": {"mode": "all", "count": 2},
        "summary": "One work accounts for 50 % of the measured influence among 2 works.",
    }  # fmt: skip
    lookalikes = [{"work_id": ids[row], "similarity": 0.5} for row in range(LOOKALIKES + 1)]
    return Job(
        id="att_0", state=JobState.SUCCEEDED, index_id=served.id, result=result, lookalikes=lookalikes,
        candidate_works=None, method="das", candidates="all", top_k=2, input={}, created_at=utc_now(), by_row=False,
    )  # fmt: skip


def said(job: Any) -> list[str]:
    return list(job.result.get("notes", []))


def names(job: Any, kind: str = "rights_holder") -> set[str]:
    return {group["name"] for group in job.result["groups"][kind]}


def test_a_hidden_work_that_the_answer_does_not_name_changes_none_of_its_words(served: ServedIndex) -> None:
    """Not works without a rights holder, and not a look-alike beyond those that are shown."""
    job = answered(served)
    seen = told(job, shade_of(served, LOOKALIKES))
    assert said(seen) == []
    assert seen.result["groups"] == job.result["groups"]
    assert len(seen.lookalikes or ()) == LOOKALIKES


def test_a_look_alike_that_would_be_shown_is_said_to_be_left_out(served: ServedIndex) -> None:
    seen = told(answered(served), shade_of(served, 3))
    assert said(seen) == [NOTE_LOOKALIKES]


def test_rights_holders_are_withheld_as_that_by_their_whole_names(served: ServedIndex) -> None:
    """A name that is the beginning of another's isn't shown by it, and creators aren't said to be withheld."""
    seen = told(answered(served), shade_of(served, len(served) - 1))
    assert said(seen) == [NOTE_HOLDERS]
    assert names(seen) == {UNKNOWN_HOLDER, "Adam", "Eve Sample", WITHHELD}
    both = told(answered(served), shade_of(served, 2, len(served) - 1))
    assert names(both) == {UNKNOWN_HOLDER, WITHHELD}


def test_creators_and_those_whose_works_have_no_rights_holder(served: ServedIndex) -> None:
    job = answered(served)
    creator = served.index.works.creators[-1]
    rows = [row for row, name in enumerate(served.index.works.creators) if name == creator]
    seen = told(job, shade_of(served, *rows))
    assert NOTE_CREATORS in said(seen)
    assert creator not in names(seen, "creator")
    nobody = told(
        job, shade_of(served, *(row for row in range(len(served)) if row not in (2, len(served) - 1)))
    )
    assert names(nobody) == {"Adam", "Eve Sample", "Ada", WITHHELD}
