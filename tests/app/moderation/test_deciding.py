"""What policies decide: each operator, three-valued logic, precedence, and the two promises about `clear`."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.moderation.fields import FIELDS
from app.moderation.logic import CopiedWork, Verdict, decide
from app.moderation.policy import STRENGTH, Policy, policy_of
from app.moderation.words import compared
from app.schemas import Attribution
from das.answer import UNKNOWN_CREATOR
from das.names import folded
from tests.app.moderation.answers import answer, copied, creator, declared, in_model, work
from tests.app.moderation.policies import ANSWERS, POLICIES, SHARES, policy
from tests.lengths import examples


def asked(when: Any, about: Attribution) -> str:
    """What a policy with one rule for review comes to: review, clear, or indeterminate."""
    return decide(policy(("review", when)), about).outcome


YES, NO, UNKNOWN = "review", "clear", "indeterminate"


@pytest.mark.parametrize(
    ("when", "outcome"),
    [
        ({"top.share": {"at_least": 0.4}}, YES),
        ({"top.share": {"above": 0.4}}, NO),
        ({"top.share": {"at_most": 0.4}}, YES),
        ({"top.share": {"below": 0.4}}, NO),
        ({"top.share": {"at_least": 0.3, "below": 0.5}}, YES),
        ({"top.share": {"known": True}}, YES),
        ({"top.share": {"known": False}}, NO),
        ({"top.low": {"at_least": 0.2}}, YES),
        ({"top.percentile": {"at_least": 99}}, YES),
        ({"certainty.stands_out": True}, YES),
        ({"certainty.stands_out": False}, NO),
        ({"certainty.percentile": {"at_least": 98}}, NO),
        ({"in_model.verdict": "likely"}, YES),
        ({"in_model.verdict": {"is_not": "likely"}}, NO),
        ({"in_model.p_value": {"below": 0.5}}, YES),
        ({"copy.verdict": ["copy", "near"]}, NO),
        ({"copy.verdict": {"not_in": ["copy", "near"]}}, YES),
        ({"copy.score": {"at_least": 0.5}}, YES),
        ({"copy.method": "pdq"}, YES),
        ({"candidates.mode": "all"}, YES),
        ({"top.creator": {"is": " creator  1 "}}, YES),
        ({"top.creator": {"is_not": "Creator 1"}}, NO),
        ({"top.creator": {"in_list": "some"}}, YES),
        ({"top.creator": {"not_in_list": "some"}}, NO),
        ({"top.creator": {"in_list": "none"}}, NO),
        ({"top.creator": {"contains": "EATOR"}}, YES),
        ({"top.creator": {"contains": "eator", "not_in_list": "some"}}, NO),
        ({"top.licence": "cc0-1.0"}, YES),
        ({"top.tdm": "prohibited"}, UNKNOWN),
        ({"top.tdm": {"known": True, "is": "prohibited"}}, NO),
        ({"top.tdm": {"known": False}}, YES),
        ({"quality.lds": {"below": 40}}, UNKNOWN),
        ({"declared.model": {"contains": "v1-5"}}, UNKNOWN),
        ({"declared.ai_generated": True}, UNKNOWN),
        ({"works": {"share": {"at_least": 0.3}, "creator": "Creator 2"}}, YES),
        ({"works": {"share": {"above": 0.3}, "creator": "Creator 2"}}, NO),
        ({"works": {"rank": {"at_most": 2}, "creator": "Creator 3"}}, NO),
        ({"works": {"tdm": "prohibited"}}, UNKNOWN),
        ({"works": {"tdm": {"known": True, "is": "prohibited"}}}, NO),
        ({"creators": {"name": "Creator 4", "share": {"at_least": 0.09}}}, YES),
        ({"creators": {"name": {"in_list": "some"}, "low": {"above": 0.2}}}, NO),
        ({"creators": {"factor": {"at_least": 4}}}, YES),
        ({"all": [{"top.share": {"above": 0.1}}, {"top.share": {"above": 0.5}}]}, NO),
        ({"any": [{"top.share": {"above": 0.1}}, {"top.share": {"above": 0.5}}]}, YES),
        ({"not": {"top.share": {"above": 0.5}}}, YES),
        ({"top.share": {"above": 0.5}, "quality.lds": {"below": 40}}, NO),
        ({"top.share": {"above": 0.1}, "quality.lds": {"below": 40}}, UNKNOWN),
        ({"any": [{"top.share": {"above": 0.1}}, {"quality.lds": {"below": 40}}]}, YES),
        ({"any": [{"top.share": {"above": 0.5}}, {"quality.lds": {"below": 40}}]}, UNKNOWN),
        ({"not": {"quality.lds": {"below": 40}}}, UNKNOWN),
    ],
)
def test_each_operator(when: Any, outcome: str) -> None:
    assert asked(when, answer()) == outcome


def test_what_the_picture_says() -> None:
    said = answer(input=declared(model="Other-v2", tool="ComfyUI", is_model_of_index="other"))
    assert asked({"declared.model": {"contains": "other"}}, said) == YES
    assert asked({"declared.is_model_of_index": "other", "declared.tool": "comfyui"}, said) == YES
    # "unknown" isn't an answer, so a rule that doesn't name it can't be decided.
    unsure = answer(input=declared())
    assert asked({"declared.is_model_of_index": "other"}, unsure) == UNKNOWN
    assert asked({"declared.is_model_of_index": {"known": True, "is": "other"}}, unsure) == NO
    assert asked({"declared.is_model_of_index": ["other", "unknown"]}, unsure) == YES


def test_a_picture_that_cannot_be_compared_is_no_copy_and_not_no_copy() -> None:
    plain = answer(copy=copied("unclear", score=None, work_id=None))
    assert asked({"copy.verdict": "copy"}, plain) == UNKNOWN
    assert asked({"copy.verdict": {"is_not": "copy"}}, plain) == UNKNOWN
    assert asked({"copy.verdict": ["copy", "unclear"]}, plain) == YES
    assert asked({"copy.score": {"above": 0.9}}, plain) == UNKNOWN


def test_works_that_are_not_named_are_bounded_by_the_last() -> None:
    few = answer(works=[work(1, 0.4), work(2, 0.1)], candidates={"mode": "all", "count": 50, "asked": "all"})
    assert asked({"works": {"creator": "Creator 9", "share": {"at_least": 0.2}}}, few) == NO
    assert asked({"works": {"creator": "Creator 9", "share": {"at_least": 0.05}}}, few) == UNKNOWN
    assert asked({"works": {"creator": "Creator 9", "rank": {"at_most": 2}}}, few) == NO
    assert asked({"works": {"creator": "Creator 9", "rank": {"at_most": 3}}}, few) == UNKNOWN
    # Without a bound, those are meant that are named.
    assert asked({"works": {"creator": "Creator 9"}}, few) == NO
    reason = decide(
        policy(("review", {"works": {"share": {"at_least": 0.05}, "creator": "x"}})), few
    ).reasons[0]
    assert "ask with a larger top_k" in reason.text


def test_works_that_an_approximate_search_missed_may_hold_more_than_the_last() -> None:
    found = answer(
        works=[work(1, 0.4), work(2, 0.1)],
        candidates={"mode": "approximate", "count": 50, "scored": 9, "asked": "all"},
    )
    assert asked({"works": {"creator": "Creator 9", "share": {"at_least": 0.2}}}, found) == UNKNOWN
    assert asked({"works": {"creator": "Creator 9", "low": {"at_least": 0.2}}}, found) == UNKNOWN
    assert asked({"works": {"creator": "Creator 9", "percentile": {"at_least": 98.5}}}, found) == UNKNOWN
    # None holds more than the first, or than is left.
    assert asked({"works": {"creator": "Creator 9", "share": {"at_least": 0.45}}}, found) == NO
    most = answer(works=[work(1, 0.8), work(2, 0.1)], candidates=found.candidates)
    assert asked({"works": {"creator": "Creator 9", "share": {"at_least": 0.2}}}, most) == NO
    # Ranks are those of the works found.
    assert asked({"works": {"creator": "Creator 9", "rank": {"at_most": 2}}}, found) == NO
    rule = policy(("review", {"works": {"share": {"at_least": 0.2}, "creator": "x"}}))
    assert "the approximate search didn't find could meet it" in decide(rule, found).reasons[0].text


def test_a_policy_says_which_choice_of_candidates_it_takes() -> None:
    found = answer(candidates={"mode": "approximate", "count": 50, "scored": 9, "asked": "all"})
    assert asked({"candidates.mode": "all"}, found) == NO
    assert asked({"candidates.mode": ["all", "approximate"]}, found) == YES


def test_creators_that_are_not_named_are_bounded_too() -> None:
    groups = {"creator": [creator("A", 0.5), creator("B", 0.3), creator("C", 0.01)]}
    many = answer(groups=groups, candidates={"mode": "all", "count": 400, "asked": "all"})
    assert asked({"creators": {"name": "Z", "share": {"at_least": 0.2}}}, many) == NO
    assert asked({"creators": {"name": "Z", "share": {"at_least": 0.15}}}, many) == UNKNOWN
    assert asked({"creators": {"name": "Z"}}, many) == NO


def test_a_creator_who_is_not_known_may_be_anybody() -> None:
    unknown = answer(
        groups={"creator": [creator(UNKNOWN_CREATOR, 0.9, works=4)]}, works=[work(1, 1.0, creator=None)]
    )
    assert asked({"creators": {"name": {"in_list": "some"}, "share": {"above": 0.5}}}, unknown) == UNKNOWN
    assert (
        asked({"creators": {"name": {"known": True, "in_list": "some"}, "share": {"above": 0.5}}}, unknown)
        == NO
    )
    assert asked({"top.creator": {"in_list": "some"}}, unknown) == UNKNOWN


def test_names_are_compared_as_people_read_them() -> None:
    hokusai = answer(works=[work(1, 1.0, creator="Ｈokusai")])
    assert asked({"top.creator": {"in_list": "some"}}, hokusai) == YES
    assert folded("  Straße\u00a0 Nr") == "strasse nr"


YEA, NAY, WHO = {"top.share": {"above": 0.1}}, {"top.share": {"above": 0.9}}, {"quality.lds": {"above": 1}}


@pytest.mark.parametrize(
    ("default", "rules", "outcome", "codes"),
    [
        ("clear", [("review", NAY)], "clear", ["no-rule-fired"]),
        ("review", [("block", NAY)], "review", ["no-rule-fired"]),
        ("clear", [("review", YEA), ("block", YEA)], "block", ["r1"]),
        ("clear", [("review", YEA), ("review", YEA)], "review", ["r0", "r1"]),
        ("review", [("clear", YEA)], "clear", ["r0"]),
        ("review", [("clear", YEA), ("review", YEA)], "review", ["r1"]),
        ("block", [("review", YEA)], "review", ["r0"]),
        # What a rule lacks counts where it could change the outcome.
        ("clear", [("review", WHO)], "indeterminate", ["r0"]),
        ("clear", [("block", WHO), ("review", YEA)], "indeterminate", ["r0"]),
        ("clear", [("review", WHO), ("review", YEA)], "review", ["r1"]),
        ("clear", [("review", WHO), ("block", YEA)], "block", ["r1"]),
        ("review", [("clear", WHO)], "indeterminate", ["r0"]),
        ("review", [("clear", YEA), ("block", WHO)], "indeterminate", ["r1"]),
        ("review", [("review", WHO)], "review", ["no-rule-fired"]),
    ],
)
def test_precedence(default: str, rules: list[Any], outcome: str, codes: list[str]) -> None:
    verdict = decide(policy(*rules, default=default), answer())
    assert (verdict.outcome, verdict.codes) == (outcome, codes)


@pytest.mark.parametrize(
    ("verdict", "code"), [("unlikely", "model-unlikely"), ("unsure", "model-unsure"), (None, "model-unknown")]
)
def test_a_picture_that_the_model_has_not_likely_made_is_not_cleared(verdict: str | None, code: str) -> None:
    strange = answer(in_model=None if verdict is None else in_model(verdict))
    decided = decide(policy(("review", {"copy.verdict": "copy"})), strange)
    assert (decided.outcome, decided.codes) == ("indeterminate", [code])
    assert (
        decide(policy(("clear", {"copy.verdict": "none"}), default="review"), strange).outcome
        == "indeterminate"
    )
    # What isn't about influence still counts.
    assert decide(policy(("block", {"copy.verdict": "none"})), strange).outcome == "block"


def test_the_shares_of_a_picture_from_elsewhere_say_nothing() -> None:
    strange = answer(in_model=in_model("unlikely"))
    decided = decide(policy(("block", {"top.share": {"above": 0.1}})), strange)
    assert decided.outcome == "indeterminate"
    assert [reason.code for reason in decided.reasons] == ["model-unlikely", "r0"]
    assert "it says nothing, because the picture doesn't look like this model's" in decided.reasons[1].text
    # Where it was never measured who made it, they count, but nothing is cleared.
    assert decide(policy(("block", {"top.share": {"above": 0.1}})), answer(in_model=None)).outcome == "block"


def test_what_has_to_be_known_is_not_of_a_picture_from_elsewhere() -> None:
    for place in (
        {"creators": {"share": {"known": True, "above": 0.1}}},
        {"works": {"share": {"known": True}}},
    ):
        elsewhere = policy(("block", place), ("review", {"in_model.verdict": {"is_not": "likely"}}))
        for verdict in ("unlikely", "unsure"):
            assert decide(elsewhere, answer(in_model=in_model(verdict))).outcome == "review"
    unsure = decide(policy(("block", {"top.share": {"above": 0.1}})), answer(in_model=in_model("unsure")))
    assert "it isn't sure that this model made the picture" in unsure.reasons[1].text


def test_a_file_of_several_pictures_is_not_cleared() -> None:
    several = answer(input={**answer().input.model_dump(), "normalisation": ["first-frame"]})
    decided = decide(policy(("review", NAY)), several)
    assert (decided.outcome, decided.codes) == ("indeterminate", ["further-pictures"])
    blocked = decide(policy(("block", YEA)), several)
    assert (blocked.outcome, blocked.codes) == ("block", ["r0"])
    assert decided.notes == blocked.notes
    assert "only the first was looked at" in decided.notes[0]


def test_a_value_and_a_bound_never_read_alike_unless_they_are() -> None:
    close = answer(works=[work(1, 0.41738), work(2, 0.2)])
    decided = decide(policy(("review", {"top.share": {"above": 0.4174}})), close)
    assert decided.outcome == "clear"
    fired = decide(policy(("review", {"top.share": {"below": 0.4174}})), close)
    assert "41.7 % (the rule asks: less than 41.74 %)" in fired.reasons[0].text


@pytest.mark.parametrize(
    ("field", "value", "asked", "told"),
    [
        ("share", 0.12345, {"at_least": 0.1231}, "12.35 % (the rule asks: at least 12.31 %)"),
        ("share", 0.2999996, {"above": 0.3}, "29.99996 % (the rule asks: more than 30 %)"),
        ("share", 1 / 3, {"at_least": 0.9996}, "33.3 % (the rule asks: at least 99.96 %)"),
        ("percentile", 99.99999, {"at_least": 99.996}, "100 (the rule asks: at least 99.996)"),
        ("percentile", 99.99999, {"at_least": 100}, "99.99999 (the rule asks: at least 100)"),
        ("rank", 23456, {"above": 23455}, "23456 (the rule asks: more than 23455)"),
        ("rank", 123456, {"at_least": 1e5}, "123456 (the rule asks: at least 100000)"),
        ("share", 0.07, {"at_least": 0.07}, "7 % (the rule asks: at least 7 %)"),
    ],
)
def test_bounds_are_told_in_full_and_values_so_that_they_fit(
    field: str, value: float, asked: dict[str, float], told: str
) -> None:
    assert compared("it", FIELDS["works"][field], value, asked, "") == f"it: {told}"


@given(st.floats(0, 1), st.floats(0, 1) | st.integers(0, 1000).map(lambda thousandth: thousandth / 1000))
def test_whichever_is_larger_reads_larger(value: float, bound: float) -> None:
    field = FIELDS["works"]["share"]
    said = re.fullmatch(
        r"it: (.+) % \(the rule asks: more than (.+) %\)", compared("it", field, value, {"above": bound}, "")
    )
    assert said is not None
    told, asked = float(said[1]), float(said[2])
    if abs(value - bound) > 1e-13 * max(value, bound):
        assert (told > asked, told < asked) == (value > bound, value < bound)


@pytest.mark.parametrize("place", [{"works": {"creator": "X"}}, {"creators": {"name": "X"}}])
def test_no_bound_is_set_of_whom_the_answer_names_not(place: dict[str, Any]) -> None:
    """Whom the answer doesn't name may reach as far as the last that it does."""
    ((where, who),) = place.items()
    few = answer(
        candidates={"mode": "all", "count": 40, "asked": "all"},
        works=[work(1, 0.3, low=0.2, high=0.4), work(2, 0.2, low=0.1, high=0.3)],
        groups={"creator": [creator("A", 0.3, 10, high=0.4), creator("B", 0.25, 10, high=0.35)]},
    )
    for when in ({"high": {"at_least": 0.25}}, {"share": {"at_least": 0.1}}, {"low": {"above": 0.1}}):
        rules = policy(("block", {where: {**who, **when}}))
        assert decide(rules, few).outcome == "indeterminate"
    beyond = policy(("block", {where: {**who, "high": {"at_least": 0.5}}}))
    assert decide(beyond, few).outcome == "clear"
    approximate = few.model_copy(
        update={"candidates": few.candidates.model_copy(update={"mode": "approximate"})}  # type: ignore[union-attr]
    )
    assert decide(beyond, approximate).outcome == "indeterminate"


def test_a_creator_who_isnt_named_may_have_a_large_factor() -> None:
    few = answer(
        candidates={"mode": "all", "count": 40, "asked": "all"},
        groups={"creator": [creator("A", 0.6, 30), creator("B", 0.2, 2)]},
    )
    for bound, outcome in ((2, "indeterminate"), (9, "clear")):
        rules = policy(("block", {"creators": {"name": "X", "factor": {"at_least": bound}}}))
        assert decide(rules, few).outcome == outcome
    rules = policy(("block", {"creators": {"name": "X", "share_of_index": {"above": 0.2}}}))
    assert decide(rules, few).outcome == "clear"


def test_of_a_work_that_the_index_lost_nothing_is_taken_for_known() -> None:
    lost = dict.fromkeys(("creator", "rights_holder", "licence", "tdm", "title", "thumbnail"))
    about = answer(
        works=[work(1, 0.4, **lost), work(2, 0.3)], copy=copied("copy", creator=None, thumbnail=None)
    )
    for when in (
        {"top.tdm": {"known": True, "in": ["prohibited"]}},
        {"top.creator": {"known": False}},
        {"works": {"creator": {"known": True, "in": ["Ada Lovelace"]}}},
        {"works": {"licence": {"known": False}}},
        {"copy.creator": {"known": True, "is": "Ada Lovelace"}},
    ):
        assert decide(policy(("block", when)), about).outcome == "indeterminate", when
    # One that is there and says nothing says nothing.
    there = answer(works=[work(1, 0.4, creator=None, tdm=None)])
    assert (
        decide(policy(("block", {"top.tdm": {"known": True, "in": ["prohibited"]}})), there).outcome
        == "clear"
    )
    assert decide(policy(("block", {"top.creator": {"known": False}})), there).outcome == "block"


def test_a_copy_of_several_works_is_one_of_each() -> None:
    about = answer(copy=copied("copy", creator="Ada"))
    both = [CopiedWork("w_1", "Ada"), CopiedWork("w_2", "Anna")]
    for name, outcome in (("Ada", "indeterminate"), ("Anna", "indeterminate"), ("Eve", "clear")):
        for matches in (both, both[::-1]):
            decided = decide(policy(("block", {"copy.creator": {"is": name}})), about, matches)
            assert decided.outcome == outcome
    assert (
        decide(policy(("block", {"copy.creator": {"in": ["Ada", "Anna"]}})), about, both).outcome == "block"
    )
    (reason,) = decide(policy(("block", {"copy.creator": {"is": "Anna"}})), about, both).reasons
    assert reason.works == ("w_1", "w_2")
    assert reason.creators == ("Ada", "Anna")
    lost = [CopiedWork("w_1", "Ada"), CopiedWork("w_2", None, known=False)]
    assert decide(policy(("block", {"copy.creator": {"is": "Anna"}})), about, lost).outcome == "indeterminate"


def test_an_index_is_meant_by_its_name_too() -> None:
    name = answer().index.partition("@")[0]
    for test, outcome in (
        ({"is": name}, "block"), ({"is": answer().index}, "block"), ({"is": "another"}, "clear"),
        ({"is_not": name}, "clear"), ({"not_in": ["another", name]}, "clear"), ({"in": ["x", name]}, "block"),
    ):  # fmt: skip
        assert decide(policy(("block", {"index": test})), answer()).outcome == outcome, test


def test_a_copy_is_told_whatever_is_decided() -> None:
    strange = answer(in_model=in_model("unlikely"), copy=copied("copy", summary="It is a copy."))
    decided = decide(policy(("review", {"top.share": {"above": 0.9}})), strange)
    assert decided.outcome == "indeterminate"
    assert decided.notes[0] == "It is a copy."


def test_a_question_without_an_answer_is_indeterminate() -> None:
    failed = answer(
        state="failed", works=None, groups=None, in_model=None, certainty=None, copy=None,
        error={"code": "gone", "message": "The worker was lost."},
    )  # fmt: skip
    decided = decide(policy(("review", YEA)), failed)
    assert (decided.outcome, decided.codes) == ("indeterminate", ["not-answered"])
    assert "(The worker was lost)" in decided.reasons[0].text
    cancelled = answer(state="cancelled", works=None)
    assert "(it was cancelled)" in decide(policy(("review", YEA)), cancelled).reasons[0].text
    old = answer(works=None, groups=None)
    assert (
        "(the works that it names aren't known here)" in decide(policy(("review", YEA)), old).reasons[0].text
    )


def test_a_reason_names_what_was_compared_and_who_caused_it() -> None:
    decided = decide(
        policy(("review", {"works": {"share": {"at_least": 0.25}, "creator": {"in_list": "some"}}})), answer()
    )
    (reason,) = decided.reasons
    assert reason.text == (
        "“Study no. 1” by Creator 1, its share: 40 % (the rule asks: at least 25 %); its creator: Creator 1 (the rule"
        " asks: in the list some)."
    )
    assert (reason.works, reason.creators) == (("w_0000000000000001",), ("Creator 1",))
    assert [(c.field, c.value, c.asked) for c in reason.compared] == [
        ("works.share", 0.4, {"at_least": 0.25}),
        ("works.creator", "Creator 1", {"in_list": "some"}),
    ]
    assert decided.summary == "Review: somebody has to look. (r0)"
    copy = decide(policy(("block", {"copy.verdict": "copy"})), answer(copy=copied("copy")))
    assert (copy.reasons[0].works, copy.reasons[0].creators) == (("w_2c26b46b68ffc68f",), ("Ada Example",))


def test_a_rule_about_what_nobody_has_says_so() -> None:
    (reason,) = decide(policy(("review", {"not": {"works": {"share": {"above": 0.5}}}})), answer()).reasons
    assert reason.text.startswith("Its share: none that the answer names meets all that is asked")
    assert (reason.compared[0].field, reason.works) == ("works.share", ())


def test_what_is_told_of_a_rule_that_a_thousand_works_meet_is_bounded() -> None:
    works = [work(n, 0.001) for n in range(1, 1001)]
    many = answer(works=works, candidates={"mode": "all", "count": 1000, "asked": "all"})
    (reason,) = decide(policy(("review", {"works": {"share": {"above": 0}}})), many).reasons
    assert (len(reason.works), len(reason.compared), len(reason.creators)) == (10, 10, 10)


@pytest.mark.parametrize(
    "when",
    [
        {"works": {"share": {"above": 0}}},
        {"creators": {"share": {"above": 0}}},
        {"any": [{"works": {"rank": {"above": 8}}}, {"creators": {"share": {"above": 0}}}]},
        {"all": [{"works": {"share": {"above": 0}}}, {"works": {"rank": {"above": 12}}}]},
    ],
)
def test_a_reason_tells_of_no_work_or_creator_that_it_does_not_name(when: dict[str, Any]) -> None:
    """What may be told of it is judged by those that it names."""
    works = [work(n, 0.02) for n in range(1, 31)]
    groups = {"creator": [creator(f"Creator {n}", 0.02) for n in range(1, 31)]}
    many = answer(works=works, groups=groups, candidates={"mode": "all", "count": 30, "asked": "all"})
    (reason,) = decide(policy(("review", when)), many).reasons
    told = " ".join([reason.text, *(one.text for one in reason.compared)])
    named = {f"Study no. {int(one.removeprefix('w_'), 16)}" for one in reason.works} | {*reason.creators}
    everyone = [name for n in range(1, 31) for name in (f"Study no. {n}", f"Creator {n}")]
    said = {name for name in everyone if re.search(rf"{name}(?!\d)", told)}
    assert said
    assert said <= named


# Any policy, any answer.


@examples(400)
@given(POLICIES, ANSWERS)
def test_whatever_the_policy_only_what_the_model_likely_made_is_cleared(
    rules: Policy, about: Attribution
) -> None:
    decided = decide(rules, about)
    assert decided == decide(policy_of(rules.document()), about), "the same every time"
    assert decided.reasons
    assert all(reason.text for reason in decided.reasons)
    if decided.outcome == "clear":
        assert about.in_model is not None
        assert about.in_model.verdict == "likely"
    if decided.outcome in STRENGTH:
        assert decided.codes
        others = [reason for reason in decided.reasons if reason.fired and reason.outcome in STRENGTH]
        assert max(STRENGTH[reason.outcome] for reason in others) == STRENGTH[decided.outcome]


COMPLETIONS: list[dict[str, Any]] = [
    {"copy": copied(verdict), "certainty": {"stands_out": out, "percentile": 50.0, "clearly_first": out}}
    for verdict in ("copy", "near", "none")
    for out in (True, False)
]


@examples(300)
@given(POLICIES, st.lists(SHARES, min_size=1, max_size=3))
def test_a_value_that_is_missing_never_clears_what_the_value_would_not(
    rules: Policy, shares: list[float]
) -> None:
    told = {"works": [work(n, share) for n, share in enumerate(shares, 1)]}
    count = {"candidates": {"mode": "all", "count": len(shares), "asked": "all"}}
    lacking = answer(**told, **count, copy=None, certainty=None)
    if "known" in str(rules.document()):
        return  # Such a policy asks whether it is missing, and says itself what then.
    decided = decide(rules, lacking)
    if decided.outcome != "indeterminate":
        possible = {decide(rules, answer(**told, **count, **filled)).outcome for filled in COMPLETIONS}
        # A completion may lack other things (intervals, a rights signal), and be indeterminate for these.
        assert possible - {"indeterminate"} <= {decided.outcome}


def test_a_verdict_tells_what_brought_it_about() -> None:
    empty = Verdict("clear", ())
    assert (empty.codes, empty.summary) == ([], "Clear: nothing in this policy speaks against it.")
