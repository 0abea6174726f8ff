"""Policies as files: what is read, what is refused, and where the mistake is said to be."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.moderation.document import MAX_BYTES, MAX_DEPTH, PolicyError, from_values, pointer_to, read_text
from app.moderation.policy import policy_of, read_policy
from tests.lengths import examples

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text("abc -:#'\"é", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/~", max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def refusal(text: bytes | str) -> str:
    with pytest.raises(PolicyError) as caught:
        read_text(text)
    return str(caught.value)


@examples(100)
@given(VALUES)
def test_json_is_read_as_json_reads_it(values: object) -> None:
    text = json.dumps({"a": values}, ensure_ascii=False)
    assert read_text(text).values == {"a": values}
    assert from_values({"a": values}).values == {"a": values}


def test_every_value_of_yaml_has_its_line() -> None:
    document = read_text("a: 1\nb:\n  - x\n  - c/d: [2, 3]\n")
    assert document.values == {"a": 1, "b": ["x", {"c/d": [2, 3]}]}
    assert {place: document.line_of(place) for place in ("/a", "/b/0", "/b/1/c~1d/1", "/b/1/c~1d/1/none")} == {
        "/a": 1, "/b/0": 3, "/b/1/c~1d/1": 4, "/b/1/c~1d/1/none": 4,
    }  # fmt: skip
    assert pointer_to("c/d", 0, "~") == "/c~1d/0/~0"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "x" * MAX_BYTES, "has more than 64 KB"),
        ("é" * (MAX_BYTES // 2 + 1), "has more than 64 KB"),
        (b"a: \xff", "isn't UTF-8 (byte 3)"),
        ("a: \x00", "isn't YAML: unacceptable character"),
        (" \n", "is empty"),
        ("[" * 60_000, f"(line 1) is nested more than {MAX_DEPTH} levels deep"),
        ("a:\n" + "".join("  " * n + "- \n" for n in range(1, 200)), "levels deep"),
        ('{"a":' * 10_000, "is nested more than 16 levels deep"),
        ('{"a":' * 20 + "1" + "}" * 20, "is nested more than 16 levels deep"),
        ("a: &a [1]\nb: *a", "(line 2) has an alias (*)"),
        ("a: &a [*a]", "has an alias (*)"),
        ("a: 1\n\na: 2", "(line 3) has the key 'a' twice"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ("<<: {a: 1}", "has a key that isn't text: <<"),
        ("1: 2", "has a key that isn't text: 1"),
        ("? [a]\n: 2", "has a key that isn't text: a key"),
        ("a: .nan", "/a (line 1) isn't a finite number"),
        ("a: 1.0e+999", "/a (line 1) isn't a finite number"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": 1e999}', "/a isn't a finite number"),
        ('{"a": ' + "9" * 5000 + "}", "more than 100 digits"),
        ("a: " + "9" * 5000, "/a (line 1) has a value that can't be read"),
        ("a: 2024-01-01", "/a (line 1) is read as a date; put it in quotes"),
        ("a: !!binary aGk=", "/a (line 1) is read as a bytes"),
        ("!!python/object/apply:os.system ['true']", "has the tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("a: !!python/name:os.system", "/a (line 1) has a value that can't be read"),
        ("a: !!set {b}", "has the tag tag:yaml.org,2002:set"),
        ("a: [1", "isn't YAML: expected ',' or ']'"),
        ("a: 1\n---\nb: 2", "isn't YAML: but found another document"),
        ('{"a": }', "(line 1) isn't JSON: Expecting value (column 7)"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_place(text: bytes | str, said: str) -> None:
    assert said in refusal(text)
    with pytest.raises(PolicyError):
        read_policy(text)


@examples(200)
@given(st.binary(max_size=60) | st.text("{}[]&*!|>-:?#, \n\t'\"%@`ab1.", max_size=60))
def test_whatever_the_bytes_are_a_policy_is_refused_with_a_sentence(data: bytes | str) -> None:
    with pytest.raises(PolicyError) as caught:
        read_policy(data)
    assert str(caught.value).count("\n") == 0
    assert caught.value.mistakes


@examples(100)
@given(VALUES)
def test_whatever_the_values_are_they_are_refused_with_a_sentence(values: object) -> None:
    with pytest.raises(PolicyError):
        policy_of(values)


def test_values_from_elsewhere_have_the_same_bounds() -> None:
    deep: list[object] = []
    for _ in range(40):
        deep = [deep]
    for values, said in [(deep, "levels deep"), ({"a": float("nan")}, "finite"), ("x" * MAX_BYTES, "64 KB")]:
        with pytest.raises(PolicyError, match=said):
            from_values(values)
