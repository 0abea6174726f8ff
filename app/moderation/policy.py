"""A policy as pydantic models: rules with stable codes, an outcome each, and conditions on the fields of an answer.

`read_policy` takes a file's text, `policy_of` values that were stored. The condition models are made from
`app.moderation.fields`, so no field is named twice.
"""

import difflib
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    ValidationError,
    create_model,
)
from pydantic import (
    Field as Option,
)

from app.moderation.document import Document, Mistake, PolicyError, from_values, pointer_to, read_text
from app.moderation.fields import FIELDS, Field, Place
from app.schemas import Printable

Outcome = Literal["clear", "review", "block"]
# Of two rules that fire the stronger counts.
STRENGTH: dict[str, int] = {"clear": 1, "review": 2, "block": 3}
# Codes of reasons that no rule gives, so no rule may have them.
NOT_ANSWERED, NO_RULE, POLICY_UNUSABLE = "not-answered", "no-rule-fired", "policy-unusable"
MODEL_CODES = {"unlikely": "model-unlikely", "unsure": "model-unsure", None: "model-unknown"}
FURTHER_PICTURES = "further-pictures"
RESERVED = (NOT_ANSWERED, NO_RULE, POLICY_UNUSABLE, FURTHER_PICTURES, *MODEL_CODES.values())

MAX_RULES = 100
MAX_LISTS = 50
MAX_NAMES = 5000
MAX_VALUES = 200
# Tests in a whole policy, and those that look at every work or creator: an answer may name a thousand works.
MAX_TESTS = 400
MAX_SEARCHES = 50

SLUG = r"^[a-z][a-z0-9-]{0,59}$"
Slug = Annotated[str, StringConstraints(strict=True, pattern=SLUG)]
Name = Annotated[Printable, StringConstraints(strict=True, min_length=1, max_length=200)]
Sentence = Annotated[Printable, StringConstraints(strict=True, min_length=1, max_length=500)]
Number = Annotated[float, Option(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Option(strict=True)]
Values = Annotated[list[Name], Option(min_length=1, max_length=MAX_VALUES)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Test(_Strict):
    """What a rule asks of one field. Several operators in it have to hold together."""

    known: Flag | None = None

    def given(self) -> dict[str, Any]:
        """The operators that are used, by their names in the language, with what each compares with."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class NumberTest(Test):
    at_least: Number | None = None
    at_most: Number | None = None
    above: Number | None = None
    below: Number | None = None


class FlagTest(Test):
    is_: Flag | None = Option(None, alias="is")


class ChoiceTest(Test):
    is_: Name | None = Option(None, alias="is")
    is_not: Name | None = None
    in_: Values | None = Option(None, alias="in")
    not_in: Values | None = None


class TextTest(ChoiceTest):
    in_list: Name | None = None
    not_in_list: Name | None = None
    contains: Name | None = None


def _written_short(value: Any) -> Any:
    """`field: word` for `field: {is: word}`, `field: [words]` for `field: {in: [words]}`."""
    if isinstance(value, str | bool):
        return {"is": value}
    return {"in": value} if isinstance(value, list) else value


def _no_bare_number(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError("needs at_least, at_most, above or below before its number.")
    return value


def _checked(field: Field) -> Callable[[Test], Test]:
    """What pydantic's types don't see: something is asked, within what the field can be."""

    def check(test: Test) -> Test:
        given = test.given()
        if not given:
            raise ValueError("asks nothing: it needs an operator.")
        for operator, value in given.items():
            if value is None:
                raise ValueError(f"has no value for {operator}; `known: false` asks whether one is missing.")
        if isinstance(test, NumberTest) and field.range is not None:
            _within(given, field.range, field.name)
        if field.choices:
            for value in _words(given):
                if value not in field.choices:
                    raise ValueError(f"can't be {value}; it can be {', '.join(field.choices)}.")
        if isinstance(given.get("known"), bool) and not given["known"] and len(given) > 1:
            raise ValueError("can't be missing (known: false) and be compared as well.")
        return test

    return check


def _words(given: dict[str, Any]) -> Iterator[str]:
    for operator in ("is", "is_not", "in", "not_in"):
        value = given.get(operator, [])
        yield from value if isinstance(value, list) else [value]


def _within(given: dict[str, Any], range: tuple[float, float], name: str) -> None:
    low, high = range
    bounds = {operator: value for operator, value in given.items() if operator != "known"}
    for value in bounds.values():
        if not low <= value <= high:
            percent = f"; for {value:g} % write {value / 100:g}" if high == 1 and 1 < value <= 100 else ""
            raise ValueError(f"is between {low:g} and {high:g}, and {value:g} is not{percent}.")
    least = max((bounds[op] for op in ("at_least", "above") if op in bounds), default=low)
    most = min((bounds[op] for op in ("at_most", "below") if op in bounds), default=high)
    strict = (bounds.get("above") == least) or (bounds.get("below") == most)
    if least > most or (least == most and strict):
        raise ValueError("can never hold: nothing lies between these bounds.")


_TESTS: dict[str, tuple[type[Test], Callable[[Any], Any]]] = {
    "number": (NumberTest, _no_bare_number),
    "flag": (FlagTest, _written_short),
    "choice": (ChoiceTest, _written_short),
    "text": (TextTest, _written_short),
}


def attribute_of(name: str) -> str:
    """The attribute of a condition that holds the test of this field."""
    return "of_" + name.replace(".", "__")


def _test_fields(place: Place) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, field in FIELDS[place].items():
        kind, before = _TESTS[field.kind]
        annotated = Annotated[kind, BeforeValidator(before), AfterValidator(_checked(field))]  # type: ignore[valid-type]
        made[attribute_of(name)] = (annotated | None, Option(None, alias=name))
    return made


class _Condition(_Strict):
    @classmethod
    def of(cls, place: Place) -> type["_Condition"]:
        """The condition on this place's fields, all of which have to hold."""
        made: type[_Condition] = create_model(f"{place}_condition", __base__=cls, **_test_fields(place))
        return made

    def tests(self, place: Place) -> Iterator[tuple[Field, Test]]:
        """The tests that it has, each with its field."""
        for name, field in FIELDS[place].items():
            test = getattr(self, attribute_of(name), None)
            if test is not None:
                yield field, test


def _not_empty(condition: _Condition) -> _Condition:
    if not condition.model_fields_set:
        raise ValueError("is empty: a rule without a condition would always fire.")
    for name in condition.model_fields_set:
        if getattr(condition, name) is None:
            alias = type(condition).model_fields[name].alias or name
            raise ValueError(f"has nothing for {alias}.")
    return condition


WorkCondition = _Condition.of("works")
CreatorCondition = _Condition.of("creators")


class _Combined(_Condition):
    """Conditions within conditions, and those that some work or creator has to meet."""

    all_: Annotated[list["Condition"], Option(min_length=1)] | None = Option(None, alias="all")
    any_: Annotated[list["Condition"], Option(min_length=1)] | None = Option(None, alias="any")
    not_: "Condition | None" = Option(None, alias="not")
    works: Annotated[WorkCondition, AfterValidator(_not_empty)] | None = None  # type: ignore[valid-type]
    creators: Annotated[CreatorCondition, AfterValidator(_not_empty)] | None = None  # type: ignore[valid-type]


_AnswerCondition = _Combined.of("answer")
Condition = Annotated[_AnswerCondition, AfterValidator(_not_empty)]  # type: ignore[valid-type]
_Combined.model_rebuild(force=True)
_AnswerCondition.model_rebuild(force=True)


class Rule(_Strict):
    """One rule: where its condition holds, its outcome is asked for, under its code."""

    code: Slug
    outcome: Outcome
    because: Sentence | None = None
    when: Condition


class Policy(_Strict):
    """A whole policy."""

    policy: Slug
    title: Sentence | None = None
    default: Outcome = "clear"
    lists: Annotated[
        dict[Slug, Annotated[list[Name], Option(max_length=MAX_NAMES)]], Option(max_length=MAX_LISTS)
    ] = Option(default_factory=dict)
    rules: Annotated[list[Rule], Option(min_length=1, max_length=MAX_RULES)]

    def document(self) -> dict[str, Any]:
        """As plain values, written in full, from which `policy_of` makes it again."""
        return self.model_dump(by_alias=True, exclude_unset=True)

    @property
    def digest(self) -> str:
        """SHA-256 of what it says, whatever the file looks like."""
        said = json.dumps(self.document(), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(said.encode()).hexdigest()


def read_policy(data: bytes | str) -> Policy:
    """The policy in a file's text, YAML or JSON.

    Raises:
        PolicyError: it can't be used; the mistakes say where by JSON pointer and, for YAML, by line.
    """
    return _validated(read_text(data))


def policy_of(values: Any) -> Policy:
    """The policy in plain values; raises `PolicyError` as `read_policy`."""
    return _validated(from_values(values))


def _validated(document: Document) -> Policy:
    try:
        policy = Policy.model_validate(document.values)
    except ValidationError as error:
        found = [_mistake(document, item) for item in error.errors(include_url=False, include_context=True)]
        raise PolicyError(found) from error
    mistakes = [
        Mistake(pointer, document.line_of(pointer), detail) for pointer, detail in _inconsistencies(policy)
    ]
    if mistakes:
        raise PolicyError(mistakes)
    return policy


def _inconsistencies(policy: Policy) -> Iterator[tuple[str, str]]:
    """What is wrong between the parts of a policy, each with its place."""
    codes: dict[str, int] = {}
    tests = searches = 0
    for number, rule in enumerate(policy.rules):
        place = pointer_to("rules", number)
        if rule.code in RESERVED:
            yield f"{place}/code", f"is {rule.code}, which is the service's own; choose another."
        if rule.code in codes:
            yield f"{place}/code", f"is the code of rule {codes[rule.code]} as well; each needs its own."
        codes.setdefault(rule.code, number)
        if rule.outcome == "clear" and policy.default == "clear":
            yield (
                f"{place}/outcome",
                "is clear, which has no effect where the default is clear: set default to review, or leave it out.",
            )
        for pointer, field, test in tests_in(rule.when, f"{place}/when"):
            tests += 1
            if isinstance(test, TextTest):
                for name in (test.in_list, test.not_in_list):
                    if name is not None and name not in policy.lists:
                        lists = ", ".join(policy.lists) or "none"
                        yield (
                            pointer,
                            f"names the list {name}, which isn't among the policy's lists: {lists}.",
                        )
            del field
        searches += sum(1 for _ in _searches(rule.when))
    if tests > MAX_TESTS:
        yield "/rules", f"have {tests} tests together; {MAX_TESTS} at most."
    if searches > MAX_SEARCHES:
        yield "/rules", f"look through works and creators {searches} times; {MAX_SEARCHES} at most."


def tests_in(condition: Any, pointer: str) -> Iterator[tuple[str, Field, Test]]:
    """Every test in a condition, however deep, with its JSON pointer and its field."""
    for field, test in condition.tests("answer"):
        yield pointer + pointer_to(field.name), field, test
    for place in ("works", "creators"):
        inner = getattr(condition, place)
        if inner is not None:
            for field, test in inner.tests(place):
                yield pointer + pointer_to(place, field.name), field, test
    for key, inner, number in _inner(condition):
        yield from tests_in(inner, pointer + pointer_to(key, *([] if number is None else [number])))


def _searches(condition: Any) -> Iterator[str]:
    yield from (place for place in ("works", "creators") if getattr(condition, place) is not None)
    for _, inner, _ in _inner(condition):
        yield from _searches(inner)


def _inner(condition: Any) -> Iterator[tuple[str, Any, int | None]]:
    for key, several in (("all", condition.all_), ("any", condition.any_)):
        yield from ((key, inner, number) for number, inner in enumerate(several or ()))
    if condition.not_ is not None:
        yield "not", condition.not_, None


_PLAIN = {
    "missing": "is missing.",
    "string_type": "has to be text; put it in quotes if it is.",
    "float_type": "has to be a number.",
    "bool_type": "has to be true or false.",
    "list_type": "has to be a list.",
    "dict_type": "has to be a mapping of names to values.",
    "model_type": "has to be a mapping of names to values.",
    "finite_number": "has to be a finite number.",
    "string_pattern_mismatch": "has to be a word of small letters, digits and dashes, such as known-copy.",
}


def _mistake(document: Document, item: Any) -> Mistake:
    keys = [part for part in item["loc"] if part != "[key]"]
    pointer = pointer_to(*keys)
    kind, message = item["type"], str(item["msg"])
    if kind == "extra_forbidden":
        detail = _unknown(keys)
    elif kind in ("value_error", "unprintable"):
        detail = message.removeprefix("Value error, ")
    elif kind in _PLAIN:
        detail = _PLAIN[kind]
    else:
        message = message.removeprefix("Input ").removeprefix("String ").removeprefix("List ")
        detail = f"{message[0].lower()}{message[1:]}."
    return Mistake(pointer, document.line_of(pointer), detail)


def _unknown(keys: list[Any]) -> str:
    """What is said of a key that the language doesn't have, with the one that may be meant."""
    key, around = str(keys[-1]), str(keys[-2]) if len(keys) > 1 else ""
    known: list[str]
    if len(keys) == 1:
        known = list(Policy.model_fields)
    elif len(keys) == 3 and keys[0] == "rules":
        known = list(Rule.model_fields)
    elif around in ("works", "creators"):
        known = list(FIELDS[around])  # type: ignore[index]
    elif any(around in FIELDS[place] for place in FIELDS):
        kind = next(FIELDS[place][around] for place in FIELDS if around in FIELDS[place]).kind
        known = [f.alias or name for name, f in _TESTS[kind][0].model_fields.items()]
    else:
        known = [*FIELDS["answer"], "works", "creators", "all", "any", "not"]
    near = difflib.get_close_matches(key, known, 1, 0.6)
    hint = f"; is {near[0]} meant?" if near else f"; there are {', '.join(known)}."
    return f"isn't known here{hint}"
