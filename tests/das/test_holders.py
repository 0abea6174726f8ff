"""Splits of rights: what is read, what is refused, and that figures rolled up by holder add up."""

from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from das.errors import WorksError
from das.index import AttributionIndex
from das.ranking import Ranking
from das.rights.holders import UNKNOWN_HOLDER, Holders, check_holders, holders_of
from das.tally import tally_of
from das.works import Works


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, {}),
        ("", {}),
        (" \t", {}),
        ("Ada Example", {"Ada Example": 1}),
        ("Ada  Example\n", {"Ada Example": 1}),
        ("Smith; Jones & Co", {"Smith; Jones & Co": 1}),
        ("100% Design Ltd", {"100% Design Ltd": 1}),
        ("Ada 100%", {"Ada": 1}),
        ("Ada 60%; Eve 40%", {"Ada": Fraction(3, 5), "Eve": Fraction(2, 5)}),
        ("Ada 33.3 %;Eve 33,3%; 葛飾北斎 33.4%", {"Ada": Fraction(333, 1000), "Eve": Fraction(333, 1000),
                                                  "葛飾北斎": Fraction(334, 1000)}),
        ("Studio 54 50%; Club 7 50%", {"Studio 54": Fraction(1, 2), "Club 7": Fraction(1, 2)}),
        ("A 0.000001%; B 99.999999%", {"A": Fraction(1, 10**8), "B": Fraction(99999999, 10**8)}),
    ],
)  # fmt: skip
def test_what_is_read(text, found):
    assert dict(holders_of(text)) == found
    assert sum(part for _, part in holders_of(text)) == (1 if found else 0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Ada 60%; Eve 50%", "add up to 110 and not"),
        ("Ada 60%", "add up to 60 and not"),
        ("Ada 60%; Eve", "isn't a name with its percentage"),
        ("Ada 60%; 40%", "isn't a name with its percentage"),
        ("Ada 60%; Eve 40%;", "isn't a name with its percentage"),
        ("Ada 50%; ADA 50%", "named twice"),
        ("e\u0301 50%; \u00e9 50%", "named twice"),
        ("Ada 0%; Eve 100%", "has no part"),
        ("Ada -60%; Eve 160%", "add up"),
        ("Ada 33.3333333%; Eve 66.6666667%", "isn't a name with its percentage"),
        (UNKNOWN_HOLDER.upper(), "what works without"),
    ],
)
def test_what_is_refused(text, why):
    with pytest.raises(ValueError, match=why):
        holders_of(text)
    table = pa.table({"file": ["a.png", "b.png"], "rights_holder": ["Ada", text]})
    with pytest.raises(WorksError, match=r"rights_holder of b\.png can't be read"):
        check_holders(table)
    # An index that was built before splits had it as one name.
    assert Holders.of([text]).parts == (Fraction(1),)


def test_tables_without_holders_are_fine():
    check_holders(pa.table({"file": ["a.png"]}))
    check_holders(pa.table({"file": ["a.png"], "rights_holder": pa.array([None], pa.string())}))


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_in_words(text):
    try:
        found = holders_of(text)
    except ValueError as error:
        found = ((str(error), Fraction(1)),)
    assert all(name for name, _ in found)
    assert sum(part for _, part in found) in (0, 1)


def test_figures_add_up_by_holder():
    holders = Holders.of(["Ada 60%; Eve 40%", "eve", None, "Ada"])
    assert holders.names == ("Ada", "Eve", UNKNOWN_HOLDER)
    totals = holders.totals(np.array([0.5, 0.2, 0.2, 0.1]))
    assert totals == pytest.approx([0.4, 0.4, 0.2])
    assert holders.counts(np.array([1, 0, 1, 0])).tolist() == [1, 1, 1]
    assert holders.counts(np.array([1, 1, 1, 1])).tolist() == [2, 2, 1]


def test_an_answer_is_divided_by_holder_over_every_candidate(tiny_index):
    opened = AttributionIndex.open(tiny_index)
    table = opened.works.table
    texts = ["Ada 60%; Eve 40%", "Eve", None, *["Ada"] * (len(opened) - 3)]
    place = table.column_names.index("rights_holder")
    works = Works(table.set_column(place, "rights_holder", pa.array(texts, pa.string())))
    ranking = Ranking(AttributionIndex(opened.path, opened.manifest, works))
    scores = np.ones(len(opened))
    scores[:4] = 5.0, 2.0, 2.0, -1.0
    total = scores.clip(0).sum()
    answer = ranking.rank("das", tally_of(works, scores, None, 1), 1, {}, None, None)
    found = {group.name: group for group in answer.groups["rights_holder"]}
    assert list(found) == ["Ada", "Eve", UNKNOWN_HOLDER]
    assert sum(group.share for group in found.values()) == pytest.approx(1, abs=1e-12)
    assert found["Eve"].share == pytest.approx((0.4 * 5 + 2) / total)
    assert found["Eve"].works == 2
    assert found["Eve"].share_of_index == pytest.approx(1.4 / len(opened))
    assert found["Eve"].factor == pytest.approx(found["Eve"].share / found["Eve"].share_of_index)
    assert (found["Eve"].low, found["Eve"].high) == (None, None)
    tally = tally_of(works, np.array([1.0, 3.0]), np.array([0, 2]), 1)
    some = ranking.rank("das", tally, 1, {}, None, None)
    shares = {group.name: group.share for group in some.groups["rights_holder"]}
    assert shares == pytest.approx({UNKNOWN_HOLDER: 0.75, "Ada": 0.15, "Eve": 0.1})
