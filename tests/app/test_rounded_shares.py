"""Shares that the operator has rounded: coarse wherever an answer is told, exact for rules and for who pays."""

import html
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from app.callers import Caller, caller_of
from app.rounding import Rounding
from app.statements import BEYOND, NO_INFLUENCE, UNITS, Tally
from das.answer import FLAT
from das.index import AttributionIndex
from das.intervals import Noise, ShareNoise
from jobs.answered import Answered
from jobs.credentials import Scope
from jobs.models import utc_now
from jobs.settings import Settings
from tests.app.conftest import engine_of, scored

STEP, FLOOR = 0.03, 0.05
LEAST, GROUPS = 0.075, 0.09
"""The floor as it is where shares are rounded up, and what groups are rounded to."""
TOLD = {"step": STEP, "groups": GROUPS, "floor": LEAST}
WORKS = (0.311, 0.172, 0.121, 0.0797, 0.052, 0.0499)
CREATORS = (0.467, 0.311, 0.049)
ROUNDED = {"30 %", "18 %", "12 %", "9 %"}
HTML = {"Accept": "text/html"}
LIKELY = {"verdict": "likely", "p_value": 0.4, "p_value_re_encoded": 0.5, "references": 100}


@pytest.fixture(scope="module")
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"share_step": STEP, "share_floor": FLOOR})


@pytest.fixture
def answered(client: Any, ask: Any, store: Any, tiny_index: Any) -> Any:
    """A question that is answered; returns what was measured and the answer's addresses."""
    index = AttributionIndex.open(tiny_index)

    def answered(**changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        asked = ask(top_k="24")
        (job,) = store.leases.claim("a-worker", 1, [index.id])
        exact = scored(index, job)
        for one, share in zip(exact["works"], [*WORKS, *[0.004] * 24], strict=False):
            one |= {"share": share, "score": 10 * share, "low": share * 0.8, "high": share * 1.1}
        for one, share in zip(exact["groups"]["creator"], [*CREATORS, *[0.01] * 24], strict=False):
            one |= {"share": share, "factor": share / one["share_of_index"]}
        certainty = {"stands_out": True, "percentile": 2.4, "clearly_first": True}
        exact |= {
            "in_model": LIKELY,
            "certainty": certainty,
            "caveats": [FLAT.format(part="98 %", references="100")],
        }
        exact |= changes
        assert store.leases.finish(job.token, exact, {})
        return exact, asked

    return answered


def coarse(told: dict[str, Any], exact: dict[str, Any]) -> None:
    """A row tells nothing finer than its step, and nothing below the floor."""
    grain = GROUPS if "works" in exact else STEP
    assert told.get("score") is None
    # Of this index, how uncertain its shares are wasn't measured.
    assert (told["low"], told["high"]) == (None, None)
    if exact["share"] < LEAST:
        assert (told["share"], told["below"]) == (None, LEAST)
        return
    assert told["below"] is None
    assert told["share"] == pytest.approx(round(exact["share"] / grain) * grain)


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:[.,]\d+)?(?=[  ]?%)", text))


def test_the_api_tells_no_share_finer_than_its_step(client: Any, answered: Any) -> None:
    exact, asked = answered()
    told = client.get(asked["links"]["self"]).json()
    assert told["rounding"] == TOLD
    for one, measured in zip(told["works"], exact["works"], strict=True):
        coarse(one, measured)
    assert {one["share"] is None for one in told["works"]} == {True, False}
    for one, measured in zip(told["groups"]["creator"], exact["groups"]["creator"], strict=True):
        coarse(one, measured)
        if one["share"] is not None:
            assert one["factor"] == pytest.approx(one["share"] / one["share_of_index"])
    assert "rounded, to 3 % of the whole and those of groups to 9 %, and what is below 7.5 %" in " ".join(
        told["notes"]
    )
    assert told["certainty"]["percentile"] is None
    # The sentence is made of what is told: each of its numbers is a multiple of three.
    assert numbers(told["summary"])
    assert all(float(number) % 3 == 0 for number in numbers(told["summary"]))
    (listed,) = client.get("/v1/attributions").json()["items"]
    assert listed["summary"] == told["summary"] != exact["summary"]


def test_a_list_reads_its_answers_at_once(client: Any, undisturbed: Any, answered: Any) -> None:
    asked = [answered()[1] for _ in range(3)]
    read: list[str] = []
    listen = (engine_of(undisturbed), "before_cursor_execute", lambda *given: read.append(given[2]))
    event.listen(*listen)
    try:
        listed = undisturbed.get("/v1/attributions").json()["items"]
    finally:
        event.remove(*listen)
    # The list itself, and the answers whose shares are rounded.
    assert len([statement for statement in read if "FROM jobs" in statement]) == 2
    assert [one["summary"] for one in listed] == [
        client.get(one["links"]["self"]).json()["summary"] for one in reversed(asked)
    ]


@pytest.mark.parametrize(
    ("language", "under"), [("en", "less than 7.5 %"), ("de", "weniger als 7,5 %"), ("fr", "moins de 7,5 %")]
)
def test_the_page_says_the_same_in_three_languages(
    client: Any, answered: Any, language: str, under: str
) -> None:
    exact, asked = answered()
    headers = {**HTML, "Accept-Language": language}
    page = html.unescape(client.get(asked["links"]["page"], headers=headers).text).replace("\xa0", " ")
    assert page.count(under) >= sum(one["share"] < LEAST for one in exact["works"])
    ranking = re.sub(r"[.,]0 %", " %", page[page.index('class="ranking"') :])
    assert set(re.findall(r'class="share">([^<]*)<', ranking)) == {*ROUNDED, under}
    note = Rounding(**TOLD).note(client_language(language))
    assert note.replace("\xa0", " ") in page
    assert "98 %" not in page
    assert re.search("(of|von|de) 95 % (of|der|des) 100", page)
    told = client.get(asked["links"]["self"], headers={"Accept-Language": language}).json()
    assert told["summary"].replace("\xa0", " ") in page
    compare = client.get(f"/a/{asked['id']}/works/{exact['works'][20]['work_id']}", headers=headers)
    assert under in html.unescape(compare.text).replace("\xa0", " ")


def client_language(code: str) -> Any:
    from app.language import LANGUAGES

    return LANGUAGES[code]


def test_reports_and_links_are_as_coarse(client: Any, answered: Any) -> None:
    exact, asked = answered()
    report = client.get(f"{asked['links']['self']}/report.json").json()["report"]["answer"]
    assert report["rounding"] == TOLD
    for one, measured in zip(report["works"], exact["works"], strict=True):
        coarse(one, measured)
    page = html.unescape(client.get(f"{asked['links']['self']}/report.html").text).replace("\xa0", " ")
    assert "less than 7.5 %" in page
    assert client.get(f"{asked['links']['self']}/report.pdf").content.startswith(b"%PDF")
    shared = client.post(f"{asked['links']['self']}/shares", json={"works": 3}).json()
    path = shared["url"].partition("//")[2].partition("/")[2]
    opened = html.unescape(client.get(f"/{path}", headers=HTML).text).replace("\xa0", " ")
    assert set(re.findall(r'class="share">([^<]*)<', opened)) == {"30 %", "18 %", "12 %"}
    assert "17 %" not in opened


def test_rules_decide_by_the_exact_share_and_reasons_tell_the_coarse_one(client: Any, answered: Any) -> None:
    exact, asked = answered()
    first = exact["works"][0]["share"]
    rules = [
        {"code": "just", "outcome": "review", "when": {"top.share": {"at_least": first, "at_most": first}}},
        {"code": "small", "outcome": "review", "when": {"works": {"share": {"below": 0.0045}}}},
    ]
    stored = client.post("/v1/policies", json={"policy": {"policy": "exact", "rules": rules}}).json()
    client.post("/v1/policies/exact/activate", json={"version": stored["version"]})
    told = client.post("/v1/decisions", json={"policy": "exact", "attribution": asked["id"]})
    assert told.json()["outcome"] == "review"
    just, small = told.json()["reasons"]
    assert just["compared"][0]["value"] == 0.3
    assert "The first work's share: 30 %" in just["text"]
    assert small["compared"][0]["value"] is None
    assert "its share: it isn't told here, by the operator's rule" in small["text"]
    assert any("decided by the exact ones" in note for note in told.json()["notes"])
    german = client.get(told.json()["links"]["self"], headers={"Accept-Language": "de"}).json()
    assert "30 %" in german["reasons"][0]["text"].replace("\xa0", " ")
    assert "nach der Regel des Betreibers nicht genannt" in german["reasons"][1]["text"]


def test_results_of_a_batch_are_as_coarse(client: Any, store: Any, tiny_index: Any, picture: bytes) -> None:
    import time

    index = AttributionIndex.open(tiny_index)
    batch = client.post("/v1/attribution-batches", files=[("image", ("1.png", picture))]).json()
    deadline = time.monotonic() + 60
    while not (jobs := store.leases.claim("a-worker", 1, [index.id])):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    exact = scored(index, jobs[0])
    assert store.leases.finish(jobs[0].token, exact, {})
    (line,) = client.get(f"{batch['links']['self']}/results.jsonl").text.splitlines()
    told = json.loads(line)["attribution"]
    for one, measured in zip(told["works"], exact["works"], strict=True):
        coarse(one, measured)
    client.delete(batch["links"]["self"])


def test_statements_are_exact_for_who_pays_and_coarse_for_who_asked(client: Any, answered: Any) -> None:
    holders = [{"name": "Ada", "share": 0.62}, {"name": "Eve", "share": 0.34}, {"name": "Bob", "share": 0.04}]
    exact, _ = answered()
    answered(groups={**exact["groups"], "rights_holder": holders})
    day = utc_now().date()
    period = {"from": f"{day.year - 1}-01-01", "to": f"{day.year + 1}-01-01"}

    def shares() -> dict[str, float | None]:
        told = client.get("/v1/statements", params=period).json()
        named = {row["rights_holder"]: row for row in told["shares"]}
        parts = {n: float(named[n]["share"]) for n in ("Ada", "Eve", "Bob") if n in named}
        return {"rounding": told["rounding"], **parts}

    assert shares() == {"rounding": TOLD, "Ada": 0.63, "Eve": 0.36, "Bob": 0.0}
    table = client.get("/v1/statements", params={**period, "format": "csv"}).text
    assert "shares are rounded" in table
    operator = Caller("local", scopes=frozenset({Scope.READ, Scope.ADMIN}))
    client.app.dependency_overrides[caller_of] = lambda: operator
    try:
        assert shares() == {"rounding": None, "Ada": 0.62, "Eve": 0.34, "Bob": 0.04}
    finally:
        client.app.dependency_overrides.clear()


STEPS = st.none() | st.sampled_from([1e-4, 0.005, 0.01, 0.07, 0.5])
FLOORS = st.none() | st.floats(1e-4, 0.5)
NOISE = ShareNoise(Noise(1e-4, 2e-3), Noise(2e-4, 1e-3), 2.5)


def works_of(share: float) -> tuple[float, float]:
    return NOISE.interval(share, "works")


def creators_of(share: float) -> tuple[float, float]:
    return NOISE.interval(share, "creators")


def part(share: float, works: int = 1) -> dict[str, Any]:
    low, high = works_of(share) if works == 1 else creators_of(share)
    return {
        "share": share,
        "score": 7 * share,
        "low": low,
        "high": high,
        "works": works,
        "share_of_index": 0.1,
    }


def test_influence_that_is_not_told_is_not_none() -> None:
    tally = Tally(Rounding.by(None, 0.05))
    holders = [{"name": f"Holder {number}", "share": 0.04} for number in range(25)]
    tally.add(Answered("attr_1", "tiny@0", "das-block", "likely", "all", holders))
    tally.add(
        Answered("attr_2", "tiny@0", "das-block", "likely", "all", [{"name": "Holder 1", "share": 0.0}])
    )
    told = {name: units / UNITS for name, units in tally.units.items() if units}
    assert told == {BEYOND: 1.0, NO_INFLUENCE: 1.0}


@given(st.floats(0, 1), STEPS, FLOORS)
def test_whatever_is_told_is_true(share: float, step: float | None, floor: float | None) -> None:
    rounding = Rounding.of(Settings(_env_file=None, share_step=step, share_floor=floor))
    if rounding is None:
        assert (step, floor) == (None, None)
        return
    assert rounding.floor >= (floor or 0) - 1e-9
    assert rounding.groups >= rounding.floor
    exact = part(share)
    kinds = ((rounding.work, works_of, step), (rounding.group, creators_of, rounding.groups))
    for told_of, interval, grain in kinds:
        told = told_of({**exact, "low": interval(share)[0], "high": interval(share)[1]}, interval)
        if told["share"] is None:
            assert share < told["below"] == rounding.floor
            assert (told["low"], told["high"]) == (None, None)
            continue
        assert share >= rounding.floor
        assert told["share"] > 0
        assert abs(told["share"] - share) <= (grain or 0) / 2 + 1e-8
        assert told["low"] <= interval(share)[0] + 1e-8
        assert told["high"] >= interval(share)[1] - 1e-8
        if grain is not None and told["share"] < 1:
            assert np.isclose(told["share"] / grain, round(told["share"] / grain))
    assert rounding.work(exact, works_of)["score"] is None


@pytest.mark.parametrize("step", [0.01, 0.03, 0.07])
@pytest.mark.parametrize("floor", [None, 0.005, 0.01, 0.044, 0.05, 0.1])
def test_shares_that_are_told_alike_are_told_alike_in_all(step: float, floor: float | None) -> None:
    """Nothing beside a share tells where within its step it lies: not its floor, interval, group, nor a reason."""
    rounding = Rounding.by(step, floor)
    assert rounding is not None
    by_told: dict[float | None, list[float]] = {}
    found: dict[float | None, set[str]] = {}
    for share in np.linspace(1e-4, 0.6, 2400).tolist():
        work = rounding.work(part(share), works_of)
        alone = rounding.group(part(share), creators_of)
        alone.pop("score")
        by_told.setdefault(work["share"], []).append(share)
        found.setdefault(work["share"], set()).add(json.dumps([work, alone]))
    assert all(len(ways) == 1 for ways in found.values())
    whole = [shares for told, shares in by_told.items() if told is not None][:-1]
    assert whole
    for shares in whole:
        assert max(shares) - min(shares) == pytest.approx(step, abs=6e-4)


@pytest.mark.parametrize(("step", "floor"), [(0.01, 0.05), (0.03, 0.05), (None, 0.05)])
def test_a_share_below_the_floor_is_not_what_a_group_leaves(step: float | None, floor: float) -> None:
    rounding = Rounding.by(step, floor)
    assert rounding is not None
    large = 0.2
    left = []
    for small in np.linspace(0.0, floor * 0.99, 200).tolist():
        group, work = rounding.of_group(large + small), rounding.share(large)
        assert rounding.share(small) is None
        assert group is not None
        assert work is not None
        left.append(group - work)
    # What is left takes two values at most: of a share below the floor no more follows than that.
    assert len({round(one, 9) for one in left}) <= 2


def test_no_influence_at_all_is_said_as_it_is(client: Any, answered: Any, tiny_index: Any) -> None:
    works = [
        {"rank": 1, "work_id": AttributionIndex.open(tiny_index).works.column("id")[0], "score": 0.0,
         "share": 0.0, "percentile": 0.0}
    ]  # fmt: skip
    said = "No influence was measured among 24 works."
    _, asked = answered(works=works, groups={"creator": []}, summary=said)
    told = client.get(asked["links"]["self"]).json()
    assert (told["summary"], told["works"][0]["share"], told["rounding"]) == (said, 0.0, None)


def test_a_floor_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="share_floor"):
        Settings(_env_file=None, share_floor=0.6)
