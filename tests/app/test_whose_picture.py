"""What API and page say of a picture that the index's model made, may have made, or didn't make."""

import html
from typing import Any

import pytest

from das.answer import NOT_IN_MODEL, caveats_of, headline_of
from das.index import AttributionIndex
from tests.app.conftest import scored

SAYS = "The three works by Nobody Else account for 44 % of the measured influence among 24 works."
P_VALUES = {"likely": (0.42, 0.42), "unsure": (1 / 201, 0.3), "unlikely": (1 / 201, 1 / 51)}


@pytest.mark.parametrize("verdict", P_VALUES)
def test_the_verdict_is_told_and_decides_whom_the_headline_names(
    verdict: str, client: Any, ask: Any, store: Any, tiny_index: Any
) -> None:
    as_made, re_encoded = P_VALUES[verdict]
    in_model = {
        "verdict": verdict,
        "p_value": as_made,
        "p_value_re_encoded": re_encoded,
        "p_value_held_out": 0.25,
        "references": 200,
    }
    certainty = {"stands_out": True, "percentile": 60.0, "clearly_first": True}
    asked = ask()
    index = AttributionIndex.open(tiny_index)
    (job,) = store.leases.claim("a-worker", 1, [index.id])
    result = scored(index, job) | {
        "summary": headline_of(SAYS, in_model),
        "in_model": in_model,
        "certainty": certainty,
        "caveats": caveats_of(SAYS, in_model, certainty),
    }
    assert store.leases.finish(job.token, result, {"queue_wait_ms": 1.5, "engine_ms": 2.5, "batch": 1})

    told = client.get(asked["links"]["self"]).json()
    assert told["in_model"] == in_model
    assert told["certainty"] == certainty
    assert told["notes"][: len(result["caveats"])] == result["caveats"]
    assert NOT_IN_MODEL not in told["notes"]
    assert told["works"], "the ranking is there all the same"
    page = html.unescape(client.get(asked["links"]["page"], headers={"Accept": "text/html"}).text)
    top = page.split("<h1>")[1].split("</h1>")[0]
    assert ("Nobody Else" in top) == (verdict == "likely")
    assert ("If it is the model's: the three works by Nobody Else" in page) == (verdict == "unsure")
    assert ("had the model made the picture" in page) == (verdict != "likely")
    assert f"{verdict}, p = {as_made:.3f} as it is and {re_encoded:.3f} were it re-encoded" in page
    assert "p = 0.250 against pictures that it was not trained on" in page
