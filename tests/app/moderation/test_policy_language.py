"""The language of policies: its fields against the answer's schema and the page, its operators, its mistakes."""

from pathlib import Path
from typing import Any

import pytest

from app.moderation import words
from app.moderation.document import PolicyError
from app.moderation.fields import FIELDS, Place
from app.moderation.policy import (
    MAX_SEARCHES,
    MAX_TESTS,
    RESERVED,
    NumberTest,
    TextTest,
    policy_of,
    read_policy,
)
from app.schemas import Attribution

DOCS = Path(__file__).parents[3] / "docs"
SCHEMA = Attribution.model_json_schema(mode="serialization", by_alias=True)
EXAMPLE = read_policy((DOCS / "policies" / "publish.yaml").read_bytes())


def one_rule(when: Any, **changes: Any) -> dict[str, Any]:
    return {"policy": "a-policy", "rules": [{"code": "a-rule", "outcome": "review", "when": when}], **changes}


def mistakes(values: Any) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        policy_of(values)
    return [str(mistake) for mistake in caught.value.mistakes]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without its reference and without its null."""
    while True:
        if "$ref" in schema:
            schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
        elif "anyOf" in schema:
            schema = next(part for part in schema["anyOf"] if part.get("type") != "null")
        else:
            return schema


def told_as(schema: dict[str, Any], path: list[str]) -> dict[str, Any]:
    for step in path:
        schema = resolved(schema)
        schema = schema["items"] if step == "0" else schema["properties"][step]
    return resolved(schema)


ROOTS: dict[Place, list[str]] = {"answer": [], "works": ["works", "0"], "creators": []}
ALL_FIELDS = [(place, field) for place, fields in FIELDS.items() for field in fields.values()]


@pytest.mark.parametrize(
    ("place", "field"), ALL_FIELDS, ids=[f"{place}-{field.name}" for place, field in ALL_FIELDS]
)
def test_every_field_is_what_the_answers_schema_says(place, field):
    # `copied` is what the API calls `copy`.
    path = [*ROOTS[place], *("copy" if step == "copied" else step for step in field.path)]
    root = SCHEMA["$defs"]["Group"] if place == "creators" else SCHEMA
    schema = told_as(root, path)
    kind = {"number": ("number", "integer"), "flag": ("boolean",)}.get(field.kind, ("string",))
    assert schema["type"] in kind
    assert tuple(schema.get("enum", ())) == field.choices
    assert (field.range is not None) == (field.kind == "number")
    assert field.undecided in (None, *field.choices)
    assert f"| `{field.name}` |" in (DOCS / "moderation.md").read_text()
    assert field.influence == (path[0] in ("works", "certainty") or place == "creators")


def test_the_example_is_a_policy_and_is_kept_as_it_is():
    assert EXAMPLE.policy == "publish"
    assert policy_of(EXAMPLE.document()) == EXAMPLE
    assert policy_of(EXAMPLE.document()).digest == EXAMPLE.digest
    assert [rule.code for rule in EXAMPLE.rules][:2] == ["known-copy", "near-copy"]
    assert words.remarks(EXAMPLE) == []


def test_short_forms_are_the_long_ones():
    short = policy_of(
        one_rule({"copy.verdict": "copy", "top.licence": ["a", "b"], "certainty.stands_out": True})
    )
    long = policy_of(
        one_rule(
            {
                "copy.verdict": {"is": "copy"},
                "top.licence": {"in": ["a", "b"]},
                "certainty.stands_out": {"is": True},
            }
        )
    )
    assert short == long
    assert short.digest == long.digest


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ({}, "/rules/0/when is empty: a rule without a condition would always fire."),
        ({"all": []}, "/rules/0/when/all should have at least 1 item after validation, not 0."),
        ({"top.shre": {"above": 0}}, "/rules/0/when/top.shre isn't known here; is top.share meant?"),
        ({"works": {"shares": {"above": 0}}}, "/rules/0/when/works/shares isn't known here; is share meant?"),
        ({"top.share": {"atleast": 0}}, "/rules/0/when/top.share/atleast isn't known here; is at_least meant?"),
        ({"top.share": {}}, "/rules/0/when/top.share asks nothing: it needs an operator."),
        ({"top.share": 0.3}, "/rules/0/when/top.share needs at_least, at_most, above or below before its number."),
        ({"top.share": "much"}, "/rules/0/when/top.share has to be a mapping of names to values."),
        ({"top.share": None}, "/rules/0/when has nothing for top.share."),
        ({"top.share": {"above": "0.3"}}, "/rules/0/when/top.share/above has to be a number."),
        ({"top.share": {"above": True}}, "/rules/0/when/top.share/above has to be a number."),
        (
            {"top.share": {"above": 30}},
            "/rules/0/when/top.share is between 0 and 1, and 30 is not; for 30 % write 0.3.",
        ),
        ({"top.share": {"above": -0.1}}, "/rules/0/when/top.share is between 0 and 1, and -0.1 is not."),
        (
            {"top.share": {"above": 0.5, "at_most": 0.5}},
            "/rules/0/when/top.share can never hold: nothing lies between these bounds.",
        ),
        ({"top.share": {"above": 1}}, "/rules/0/when/top.share can never hold: nothing lies between these bounds."),
        (
            {"top.share": {"known": False, "above": 0.5}},
            "/rules/0/when/top.share can't be missing (known: false) and be compared as well.",
        ),
        (
            {"copy.verdict": "coppy"},
            "/rules/0/when/copy.verdict can't be coppy; it can be copy, near, none, unclear.",
        ),
        ({"copy.verdict": {"is": True}}, "/rules/0/when/copy.verdict/is has to be text; put it in quotes if it is."),
        (
            {"copy.verdict": {"is": None}},
            "/rules/0/when/copy.verdict has no value for is; `known: false` asks whether one is missing.",
        ),
        ({"certainty.stands_out": "yes"}, "/rules/0/when/certainty.stands_out/is has to be true or false."),
        ({"not": {"not": {}}}, "/rules/0/when/not/not is empty: a rule without a condition would always fire."),
        (
            {"any": [{"top.creator": {"in_list": "friends"}}]},
            "/rules/0/when/any/0/top.creator names the list friends, which isn't among the policy's lists: none.",
        ),
    ],
)  # fmt: skip
def test_a_mistake_in_a_condition_is_told_with_its_place(when, said):
    assert mistakes(one_rule(when)) == [said]


GOOD = {"copy.verdict": "copy"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"policy": "A policy"},
            "/policy has to be a word of small letters, digits and dashes, such as known-copy.",
        ),
        ({"rules": []}, "/rules should have at least 1 item after validation, not 0."),
        ({"rules": {}}, "/rules has to be a list."),
        ({"colour": 1}, "/colour isn't known here; there are policy, title, default, lists, rules."),
        ({"default": "pass"}, "/default should be 'clear', 'review' or 'block'."),
        ({"lists": {"a": ["x", 1]}}, "/lists/a/1 has to be text; put it in quotes if it is."),
        ({"title": "a\x00b"}, "/title has control characters or lone surrogates in it."),
        ({"title": "\ud800"}, "/title has control characters or lone surrogates in it."),
    ],
)
def test_a_mistake_around_the_rules_is_told_with_its_place(changes, said):
    assert mistakes(one_rule(GOOD, **changes)) == [said]


def test_what_is_wrong_between_rules():
    rules = [
        {"code": "one", "outcome": "review", "when": GOOD},
        {"code": "one", "outcome": "clear", "when": GOOD},
        {"code": RESERVED[0], "outcome": "block", "when": GOOD},
    ]
    assert mistakes({"policy": "p", "rules": rules}) == [
        "/rules/1/code is the code of rule 0 as well; each needs its own.",
        "/rules/1/outcome is clear, which has no effect where the default is clear: set default to review, or leave"
        " it out.",
        "/rules/2/code is not-answered, which is the service's own; choose another.",
    ]


def test_what_a_policy_may_cost_is_bounded():
    tests = [{"top.share": {"above": 0.1}}] * (MAX_TESTS + 1)
    searches = [{"works": {"share": {"above": 0.1}}}] * (MAX_SEARCHES + 1)
    assert mistakes(one_rule({"any": tests})) == ["/rules have 401 tests together; 400 at most."]
    assert mistakes(one_rule({"any": searches})) == [
        "/rules look through works and creators 51 times; 50 at most."
    ]


def test_mistakes_in_yaml_have_lines():
    text = "policy: p\nrules:\n  - code: a\n    outcome: stop\n    when:\n      top.share:\n        over: 1\n"
    with pytest.raises(PolicyError) as caught:
        read_policy(text)
    assert [(mistake.pointer, mistake.line) for mistake in caught.value.mistakes] == [
        ("/rules/0/outcome", 4),
        ("/rules/0/when/top.share/over", 7),
    ]
    assert str(caught.value) == "/rules/0/outcome (line 4) should be 'clear', 'review' or 'block'. (1 more)"


def test_every_rule_of_the_example_is_said_in_words():
    said = [words.rule_in_words(rule) for rule in EXAMPLE.rules]
    assert (
        said[0]
        == "known-copy: block, where the copy verdict is copy. We don't publish copies of training works."
    )
    assert said[2] == (
        "protected-creator: block, where a creator has the name in the list protected, the lower end of that share at"
        " least 25 %. This creator asked us not to publish what leans on them."
    )
    assert "not (the first work's creator is in the list agreed)" in said[4]


def test_a_list_that_no_rule_uses_is_remarked():
    policy = policy_of(one_rule({"top.creator": {"in_list": "a"}}, lists={"a": [], "b": ["x"]}))
    assert words.remarks(policy) == ["The list a is empty.", "No rule uses the list b."]


def test_every_operator_is_documented():
    page = (DOCS / "moderation.md").read_text()
    operators = {
        field.alias or name for kind in (NumberTest, TextTest) for name, field in kind.model_fields.items()
    }
    assert len(operators) == 12
    for operator in operators:
        assert f"`{operator}`" in page
