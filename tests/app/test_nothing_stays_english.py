"""Whatever an answer says of a picture, it says it in each language: no sentence of it stays English."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app import redaction
from app.answers import HIDDEN_WORK
from app.examples import ATTRIBUTION
from app.language import ENGLISH, LANGUAGES
from app.retelling import retold
from app.schemas import Attribution
from das.answer import CandidateSet, GroupShare, RankedWork, caveats_of, headline_of, sentence_of
from das.copies import copy_sentence

SHARES = st.sampled_from([0.0, 0.0004, 0.02, 0.1, 0.31, 0.9, 1.0])
NAMES = st.sampled_from([None, "Ada Lovelace", "Anna Atkins", "Withheld", "L. d'Été {n} %"])
REFERENCES = 64


@st.composite
def answers(draw: st.DrawFn) -> Attribution:
    """An answer with the sentences that are made of its facts, perhaps with works that may not be shown."""
    share, count = draw(SHARES), draw(st.sampled_from([1, 2, 40, 1500]))
    candidates = CandidateSet(draw(st.sampled_from(["all", "screened", "approximate"])), count)
    low, high = draw(st.sampled_from([(None, None), (share / 2, min(1.0, 1.5 * share))]))
    first = RankedWork(1, "w_0", 0, share, share, 99.0, low, high)
    title, creator = draw(st.sampled_from([None, "Notes", "“x” {y}"])), draw(NAMES)
    groups = [
        GroupShare(name, held, works, min(1.0, works / count), held / min(1.0, works / count))
        for name, held, works in draw(
            st.lists(st.tuples(NAMES.filter(bool), SHARES, st.sampled_from([1, 2, 12])), max_size=3)
        )
    ]
    hidden = draw(st.booleans())
    named = (None, None, []) if hidden else (title, creator, groups)
    ranking = sentence_of(named[0], named[1], first, named[2], candidates)
    verdict = draw(st.sampled_from(["likely", "unsure", "unlikely", None]))
    in_model = certainty = None
    if verdict is not None:
        p_value = draw(st.sampled_from([1 / (REFERENCES + 1), 0.4]))
        in_model = {
            **ATTRIBUTION["in_model"], "verdict": verdict, "p_value": p_value, "references": REFERENCES,
        }  # fmt: skip
        certainty = {
            **ATTRIBUTION["certainty"],
            "stands_out": draw(st.booleans()),
            "clearly_first": draw(st.sampled_from([True, False, None])),
        }
    notes = caveats_of(ranking, in_model, certainty)
    works = draw(st.sampled_from([1, 3]))
    if hidden:
        notes += [
            redaction.NOTE.format(works=works, are="is" if works == 1 else "are"),
            redaction.NOTE_CREATORS,
            redaction.NOTE_LOOKALIKES,
        ]
    work_id = f"{redaction.HIDDEN_PREFIX}1" if hidden else "w_0"
    copied = {
        **ATTRIBUTION["copy"], "verdict": "copy", "work_id": work_id, "title": None, "creator": None,
        "mirrored": True,
        "summary": copy_sentence("copy", HIDDEN_WORK if hidden else "a work without a title", mirrored=True,
                                 in_model=verdict),
    }  # fmt: skip
    shown = None if hidden else "/v1/works/w_0/thumbnail"
    work: dict[str, Any] = {
        **ATTRIBUTION["works"][0], "work_id": work_id, "thumbnail": shown, "share": share, "low": low, "high": high,
        "title": None if hidden else title, "creator": None if hidden else creator,
    }  # fmt: skip
    return Attribution.model_validate(
        {
            **ATTRIBUTION,
            "summary": headline_of(ranking, in_model),
            "notes": notes,
            "works": [work],
            "groups": {"creator": [vars(group) for group in groups]},
            "candidates": {"mode": candidates.mode, "count": count, "asked": "all"},
            "in_model": in_model,
            "certainty": certainty,
            "copy": copied,
            "input": {**ATTRIBUTION["input"], "declared": None},
        }
    )


@given(answers())
def test_no_sentence_of_an_answer_stays_english(a: Attribution) -> None:
    assert retold(a, ENGLISH).answer == a
    english = {a.summary, *a.notes, a.copied and a.copied.summary}
    for language in LANGUAGES.values():
        if language is ENGLISH:
            continue
        found = retold(a, language)
        assert found.left == frozenset()
        told = found.answer
        assert not {told.summary, *told.notes, told.copied and told.copied.summary} & english
        assert told.summary
        assert len(told.notes) == len(a.notes)
