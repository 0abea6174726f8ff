"""Decisions in German and French: every sentence is told, in that language's words and numbers; codes stay."""

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.language import ENGLISH, LANGUAGES
from app.moderation import words
from app.moderation.logic import Verdict, decide, unusable
from app.moderation.policy import Policy
from app.moderation.retelling import retold_verdict
from app.schemas import Attribution
from tests.app.moderation.answers import answer, in_model, work
from tests.app.moderation.policies import ANSWERS, POLICIES, policy
from tests.lengths import examples

GERMAN, FRENCH = LANGUAGES["de"], LANGUAGES["fr"]


def kept(verdict: Verdict) -> dict[str, Any]:
    """A verdict as it is stored."""
    told: dict[str, Any] = json.loads(json.dumps({**asdict(verdict), "summary": verdict.summary}))
    return told


def sentences(verdict: dict[str, Any]) -> list[str]:
    """Every sentence of it."""
    compared = [one["text"] for reason in verdict["reasons"] for one in reason["compared"]]
    return [verdict["summary"], *(reason["text"] for reason in verdict["reasons"]), *compared]


@examples(400)
@given(POLICIES, ANSWERS, st.sampled_from([GERMAN, FRENCH]))
def test_whatever_was_decided_no_sentence_stays_english(
    policy: Policy, about: Attribution, language: Any
) -> None:
    english = kept(decide(policy, about))
    told = retold_verdict(english, language)
    for before, after in zip(sentences(english), sentences(told), strict=True):
        assert before != after
    # Everything but the sentences is the same.
    for one in (english, told):
        one["summary"] = ""
        one["notes"] = []
        for reason in one["reasons"]:
            reason["text"] = ""
            for comparison in reason["compared"]:
                comparison["text"] = ""
    assert told == english
    assert retold_verdict(english, ENGLISH) is english


def test_numbers_and_names_are_written_as_the_language_does() -> None:
    rules = policy(
        ("block", {"works": {"share": {"at_least": 0.125}, "creator": ["Creator 1", "Creator 2"]}}),
        ("review", {"in_model.p_value": {"known": False}}),
    )
    verdict = kept(decide(rules, answer(works=[work(1, 0.4), work(2, 0.2, title=None)])))
    german, french = (retold_verdict(verdict, language) for language in (GERMAN, FRENCH))
    assert german["summary"] == "Gesperrt: Die Regelung hält es zurück. (r0)"
    assert german["reasons"][0]["text"] == (
        "„Study no. 1“ von Creator 1, sein Anteil: 40 % (die Regel verlangt: mindestens 12,5 %); sein Urheber:"
        " Creator 1 (die Regel verlangt: Creator 1 oder Creator 2); Werk w_0000000000000002 von Creator 2, sein"
        " Anteil: 20 % (die Regel verlangt: mindestens 12,5 %); sein Urheber: Creator 2 (die Regel verlangt:"
        " Creator 1 oder Creator 2)."
    )
    assert "au moins 12,5" in french["reasons"][0]["text"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"state": "cancelled", "works": None},
            "Die Frage nach dem Bild hat keine Antwort (sie wurde abgebrochen)",
        ),
        (
            {"state": "failed", "works": None, "error": {"code": "x", "message": "Too hot."}},
            "Die Frage nach dem Bild hat keine Antwort (Too hot)",
        ),
        ({"in_model": in_model("unsure")}, "Das Bild kann ein verändertes dieses Modells sein"),
        ({"in_model": None}, "Ob dieses Modell das Bild erzeugt hat, ist nicht bekannt"),
    ],
)
def test_the_services_own_reasons(changes: dict[str, Any], said: str) -> None:
    verdict = decide(policy(("block", {"top.share": {"above": 0.9}})), answer(**changes))
    assert retold_verdict(kept(verdict), GERMAN)["reasons"][0]["text"].startswith(said)


def test_a_version_that_cannot_be_read() -> None:
    told = retold_verdict(kept(unusable("p", 3)), FRENCH)
    assert told["reasons"][0]["text"].startswith("La version 3 de p n’est plus lisible")


def test_what_english_would_say_otherwise_stays_as_it_is() -> None:
    verdict = kept(decide(policy(("review", {"top.share": {"at_least": 0.3}})), answer()))
    (reason,) = verdict["reasons"]
    reason["text"] = "As an earlier version said it."
    reason["compared"][0]["text"] = "Its share is large."
    verdict["summary"] = "Look at it."
    told = retold_verdict(verdict, GERMAN)
    assert told["reasons"][0]["text"] == "As an earlier version said it."
    assert told["reasons"][0]["compared"][0]["text"] == "Its share is large."
    assert told["summary"] == "Look at it."


def test_what_is_hidden_is_told_as_hidden() -> None:
    verdict = kept(decide(policy(("review", {"top.share": {"at_least": 0.3}})), answer()))
    verdict["reasons"][0] |= {"text": words.ENGLISH("decision.hidden"), "compared": []}
    assert (
        retold_verdict(verdict, GERMAN)["reasons"][0]["text"] == "Es geht um Werke, die nicht gezeigt werden."
    )
