"""Policies made of rules, and any policy and any answer for property tests."""

from typing import Any

from hypothesis import strategies as st

from app.moderation.fields import FIELDS
from app.moderation.policy import Policy, policy_of
from das.answer import UNKNOWN_CREATOR
from tests.app.moderation.answers import answer, copied, creator, in_model, work

LISTS = {"some": ["Creator 1", "  HOKUSAI "], "none": []}


def policy(*rules: tuple[str, Any], default: str = "clear") -> Policy:
    """A policy whose rules have these outcomes and conditions, with the codes r0, r1, …"""
    told = [{"code": f"r{n}", "outcome": outcome, "when": when} for n, (outcome, when) in enumerate(rules)]
    return policy_of({"policy": "p", "default": default, "lists": LISTS, "rules": told})


def conditions_on(place: str) -> st.SearchStrategy[Any]:
    def test(name: str) -> st.SearchStrategy[Any]:
        field = FIELDS[place][name]  # type: ignore[index]
        if field.kind == "number":
            low, high = field.range or (0, 1)
            bound = st.floats(low, high, exclude_min=True, exclude_max=True)
            return st.sampled_from(["at_least", "at_most", "above", "below"]).flatmap(
                lambda op: bound.map(lambda value: {op: value})
            ) | st.sampled_from([{"known": True}, {"known": False}])
        if field.kind == "flag":
            return st.booleans() | st.just({"known": False})
        words = st.sampled_from(field.choices or ("Creator 1", "Creator 2", "x"))
        operator = st.sampled_from(["is", "is_not"])
        said = operator.flatmap(lambda op: words.map(lambda word: {op: word})) | st.lists(
            words, min_size=1, max_size=3
        )
        lists = st.sampled_from([{"in_list": "some"}, {"not_in_list": "some"}, {"contains": "1"}])
        return said if field.choices else said | lists

    return st.sampled_from(sorted(FIELDS[place])).flatmap(  # type: ignore[index]
        lambda name: test(name).map(lambda value: {name: value})
    )


CONDITIONS = st.recursive(
    conditions_on("answer")
    | conditions_on("works").map(lambda inner: {"works": inner})
    | conditions_on("creators").map(lambda inner: {"creators": inner}),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda some: {"all": some})
        | st.lists(inner, min_size=1, max_size=3).map(lambda some: {"any": some})
        | inner.map(lambda one: {"not": one})
    ),
    max_leaves=5,
)
POLICIES = st.sampled_from(["clear", "review", "block"]).flatmap(
    lambda default: st.lists(
        st.tuples(st.sampled_from(["review", "block"] + ["clear"] * (default != "clear")), CONDITIONS),
        min_size=1,
        max_size=4,
    ).map(lambda rules: policy(*rules, default=default))
)
SHARES = st.floats(0, 1)
ANSWERS = st.builds(
    lambda origin, copy, certain, works, groups, count, low: answer(
        in_model=None if origin is None else in_model(origin),
        copy=None if copy is None else copied(copy, score=None if copy == "unclear" else 0.8),
        certainty=certain,
        candidates={"mode": "all", "count": count, "asked": "all"},
        works=[work(n, share, low=low, tdm=tdm) for n, (share, tdm) in enumerate(works, 1)],
        groups={"creator": [creator(name, share, low=low) for name, share in groups.items()]},
    ),
    st.sampled_from([None, "likely", "unsure", "unlikely"]),
    st.sampled_from([None, "copy", "near", "none", "unclear"]),
    st.sampled_from(
        [None, {"stands_out": True, "percentile": None}, {"stands_out": False, "percentile": 3.0}]
    ),
    st.lists(st.tuples(SHARES, st.sampled_from([None, "prohibited", "allowed"])), min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(["Creator 1", "Creator 2", UNKNOWN_CREATOR]), SHARES, max_size=3),
    st.integers(1, 9),
    st.none() | SHARES,
)
