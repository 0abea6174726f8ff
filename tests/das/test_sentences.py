"""What an answer says in its sentence, of works and shares that were put there: no index and no model."""

from typing import Literal

import numpy as np
import pytest

from das.answer import (
    GROUPS_KEPT,
    UNKNOWN_CREATOR,
    CandidateSet,
    GroupShare,
    RankedWork,
    group_shares,
    number_word,
    percent,
    summarise,
)
from das.parts import Parts
from tests.das.named_works import table


def group(name: str, share: float, works: int, of: int) -> GroupShare:
    return GroupShare(name, share, works, works / of, share / (works / of))


ADA, NOTES = "Ada Lovelace", "Notes"


@pytest.mark.parametrize(
    ("creator", "title", "share", "groups", "candidates", "sentence"),
    [
        pytest.param(
            ADA,
            NOTES,
            0.11,
            [group("Hokusai", 0.4, 900, 1200), group(ADA, 0.31, 3, 1200)],
            CandidateSet("all", 1200),
            "The three works by Ada Lovelace account for 31 % of the measured influence among 1,200 works.",
            id="several",
        ),
        pytest.param(
            ADA,
            NOTES,
            0.62,
            [group(ADA, 0.72, 2, 1000)],
            CandidateSet("screened", 1000),
            "The two works by Ada Lovelace account for 72 % of the measured influence among the 1,000 most similar"
            " works; “Notes” alone for 62 %.",
            id="one-of-several",
        ),
        pytest.param(
            ADA,
            NOTES,
            0.62,
            [group(ADA, 0.62, 1, 1000)],
            CandidateSet("all", 1000),
            "One work by Ada Lovelace, “Notes”, accounts for 62 % of the measured influence among 1,000 works.",
            id="their-only-one",
        ),
        pytest.param(
            ADA,
            NOTES,
            0.98,
            [group(ADA, 0.983, 112, 1000)],
            CandidateSet("all", 1000),
            "One work by Ada Lovelace, “Notes”, accounts for 98 % of the measured influence among 1,000 works.",
            id="one-with-all-of-it",
        ),
        pytest.param(
            ADA,
            NOTES,
            0.01,
            [group(ADA, 0.49, 600, 1200), group("Hokusai", 0.505, 600, 1200)],
            CandidateSet("all", 1200),
            "One work by Ada Lovelace, “Notes”, accounts for 1.0 % of the measured influence among 1,200 works.",
            id="less-than-their-number",
        ),
        pytest.param(
            None,
            NOTES,
            0.999,
            [group("Unknown creator", 1.0, 50, 50)],
            CandidateSet("all", 50),
            "One work, “Notes”, accounts for over 99 % of the measured influence among 50 works.",
            id="nobody-known",
        ),
        pytest.param(
            ADA,
            None,
            0.2,
            [group(ADA, 0.3, 2, 50)],
            CandidateSet("all", 50),
            "The two works by Ada Lovelace account for 30 % of the measured influence among 50 works; one of them"
            " alone for 20 %.",
            id="no-title",
        ),
        pytest.param(
            ADA,
            NOTES,
            0.2,
            [group("Anna Atkins", 0.5, 12, 50), group(ADA, 0.3, 2, 50)],
            CandidateSet("all", 50),
            "The 12 works by Anna Atkins account for 50 % of the measured influence among 50 works; ranked first is"
            " “Notes” by Ada Lovelace, alone for 20 %.",
            id="another-holds-more",
        ),
        pytest.param(
            None,
            None,
            0.2,
            [group("Anna Atkins", 0.5, 12, 50), group(UNKNOWN_CREATOR, 0.3, 2, 50)],
            CandidateSet("all", 50),
            "The 12 works by Anna Atkins account for 50 % of the measured influence among 50 works; ranked first is"
            " a work of an unknown creator, alone for 20 %.",
            id="another-holds-more-than-unknown",
        ),
        pytest.param(
            ADA,
            NOTES,
            0.2,
            [group("Anna Atkins", 0.6, 30, 50), group(UNKNOWN_CREATOR, 0.4, 3, 50), group(ADA, 0.3, 2, 50)],
            CandidateSet("all", 50),
            "The two works by Ada Lovelace account for 30 % of the measured influence among 50 works; “Notes”"
            " alone for 20 %.",
            id="no-more-than-their-number",
        ),
        pytest.param(
            ADA,
            NOTES,
            0.002,
            [group(ADA, 0.5, 20, 1200)],
            CandidateSet("all", 1200),
            "No work stands out: the highest-ranked accounts for 0.2 % of the measured influence among 1,200 works.",
            id="flat",
        ),
        pytest.param(
            ADA,
            NOTES,
            0.0,
            [group(ADA, 0.0, 3, 3)],
            CandidateSet("all", 3),
            "No influence was measured among 3 works.",
            id="nothing",
        ),
    ],
)
def test_the_sentence(
    creator: str | None,
    title: str | None,
    share: float,
    groups: list[GroupShare],
    candidates: CandidateSet,
    sentence: str,
) -> None:
    first = RankedWork(1, "w_0", 0, share, share, 99.0)
    assert summarise(table([creator], [title]), first, groups, candidates) == sentence


@pytest.mark.parametrize(
    ("mode", "low", "named"),
    [
        ("all", 0.05, True),
        ("all", None, True),
        ("approximate", 0.16, True),
        # 12 of 100 works: as much as their number suggests may be all that they hold.
        ("approximate", 0.12, False),
        ("approximate", 0.05, False),
        ("approximate", None, False),
    ],
)
@pytest.mark.parametrize("creator", [ADA, "Anna Atkins"])
def test_a_share_that_is_an_estimate_names_a_creator_only_by_its_lower_end(
    mode: Literal["all", "approximate"], low: float | None, named: bool, creator: str
) -> None:
    first = RankedWork(1, "w_0", 0, 0.03, 0.03, 99.0)
    groups = [
        GroupShare("Anna Atkins", 0.3, 12, 0.12, 2.5, low, 0.4),
        GroupShare(ADA, 0.03, 1, 0.01, 3.0, 0.03, 0.03),
    ]
    sentence = summarise(table([creator], [NOTES]), first, groups, CandidateSet(mode, 100))
    assert ("The 12 works by Anna Atkins account for 30 %" in sentence) is named
    if not named:
        assert sentence.startswith(f"One work by {creator}, “Notes”, accounts for 3.0 %")


def test_whoever_the_sentence_names_is_among_the_creators_kept() -> None:
    """Of more creators than are kept, the first work's may have a small share in all."""
    many = GROUPS_KEPT + 20
    shares, codes = np.full(2 * many, 1.0), np.tile(np.arange(many), 2)
    shares[many - 1] = 0.9
    parts = Parts.of(codes, shares / shares.sum(), many)
    groups = group_shares(parts, [f"creator {code}" for code in range(many)], many - 1)
    assert len(groups) == GROUPS_KEPT + 1
    assert groups[-1].name == f"creator {many - 1}"
    assert len({one.name for one in groups}) == len(groups)


def test_numbers_in_words() -> None:
    assert [percent(share) for share in (0.0004, 0.031, 0.0996, 0.31, 0.997, 1 - 1e-12, 1.0)] == [
        "less than 0.1 %",
        "3.1 %",
        "10 %",
        "31 %",
        "over 99 %",
        "100 %",
        "100 %",
    ]
    assert [number_word(number) for number in (1, 10, 1234)] == ["one", "ten", "1,234"]


def test_creators_are_ranked_by_share_and_unnamed_ones_kept() -> None:
    shares, codes = np.array([0.2, 0.5, 0.3]), np.array([0, 2, 0])
    groups = group_shares(Parts.of(codes, shares, 3), ["A", "never met", None], 0)
    assert [(group.name, group.share, group.works) for group in groups] == [
        ("A", 0.5, 2),
        ("Unknown creator", 0.5, 1),
    ]
