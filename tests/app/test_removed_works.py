"""What older answers tell of works that the version in their index's place doesn't have: nothing that is hidden."""

import html
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import delete, text
from starlette.testclient import TestClient

from app.callers import LOCAL
from app.catalogue import Catalogue, ServedIndex
from app.redaction import WITHHELD, hidden_id
from app.service import Service
from app.visibility import Viewer, Visibility
from das.index import AttributionIndex
from das.works import Works
from index_build.changing import remove
from jobs.opt_outs import NewOptOut, OptOut
from jobs.store import JobStore
from tests.app.conftest import scored

TOP = 3
CREATOR = "Xenia Removed"
FIRST = f"One work by {CREATOR}, “Secret”, accounts for 9 % of the measured influence among 40 works."
HTML = {"Accept": "text/html"}
LARGE_SHARE = {"code": "large-share", "outcome": "review", "when": {"top.share": {"at_least": 0.01}}}


@pytest.fixture(scope="module")
def removed(tmp_path_factory: pytest.TempPathFactory, tiny_index: Path) -> Path:
    """A version without the works in the first rows."""
    out = tmp_path_factory.mktemp("removed") / "second"
    assert remove(AttributionIndex.open(tiny_index), np.arange(TOP), out).state == "made"
    return out


@pytest.fixture
def index(tiny_index: Path) -> AttributionIndex:
    return AttributionIndex.open(tiny_index)


@pytest.fixture
def gone(index: AttributionIndex) -> list[str]:
    return index.works.column("id")[:TOP]


@pytest.fixture
def service(client: TestClient, store: JobStore) -> Iterator[Service]:
    service: Service = client.app.state.service  # type: ignore[attr-defined]
    yield service
    with store.database.write() as session:
        session.execute(delete(OptOut))
    service.visibility.refresh()


@pytest.fixture
def restart(service: Service, removed: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ServedIndex]:
    """Serve the later version, as after a restart with these settings; `column` is what its works' visibility is."""

    def restart(column: str | None = None, **changes: Any) -> ServedIndex:
        later = AttributionIndex.open(removed)
        if column is not None:
            said = pa.array([column] * len(later), pa.string())
            later.works = Works(later.works.table.append_column("visibility", said))
        served = ServedIndex(removed, later)
        catalogue = Catalogue([served], None)
        settings = service.settings.model_copy(update=changes)
        monkeypatch.setattr(service, "catalogue", catalogue)
        monkeypatch.setattr(
            service, "visibility", Visibility(settings, catalogue, service.store.opt_outs, service.budgets)
        )
        return served

    return restart


@pytest.fixture
def answered(ask: Callable[..., Any], store: JobStore, index: AttributionIndex) -> Callable[..., str]:
    """An answer of the first version, whose first work is removed from the later one with all of its creator's."""

    def answered(**said: Any) -> str:
        asked = ask(candidates="all", top_k="6")
        (job,) = store.leases.claim("a-worker", 1, [index.id])
        result = {**scored(index, job), "summary": FIRST, **said}
        others = {"works": 3, "share_of_index": 0.1, "factor": 1.0, "low": None, "high": None}
        result["groups"]["creator"].insert(0, {**others, "name": CREATOR, "share": 0.5})
        assert store.leases.finish(job.token, result, {"queue_wait_ms": 1.0, "batch": 1})
        return str(asked["id"])

    return answered


def decide_by(client: TestClient, name: str, rule: dict[str, Any]) -> None:
    """Have a policy of one rule decide."""
    policy = client.post("/v1/policies", json={"policy": {"policy": name, "rules": [rule]}})
    assert policy.status_code in (200, 201), policy.text
    client.post(f"/v1/policies/{name}/activate", json={"version": policy.json()["version"]})


def listed(client: TestClient, job_id: str) -> str | None:
    """The sentence of an answer in the list."""
    (one,) = [one for one in client.get("/v1/attributions").json()["items"] if one["id"] == job_id]
    summary: str | None = one["summary"]
    return summary


def opt_out(service: Service, *works: str) -> None:
    wanted = NewOptOut(owner="local", index_name="tiny", works=[*works], contact="a@example.org")
    service.store.opt_outs.create(wanted, LOCAL.actor, hide=True)
    service.visibility.refresh()


@pytest.mark.parametrize("asked", [{"leave_out": ["creators"]}, {"works": 1}, {"works": 2}])
def test_a_share_tells_nothing_of_removed_works_that_it_leaves_out(
    client: TestClient,
    gone: list[str],
    answered: Callable[..., str],
    restart: Callable[..., ServedIndex],
    asked: dict[str, Any],
) -> None:
    job_id = answered(summary=f"The three works by {CREATOR} account for 50 % of the measured influence.")
    made = client.post(f"/v1/attributions/{job_id}/shares", json=asked)
    assert made.status_code == 201, made.text
    link = "/s/" + made.json()["url"].rpartition("/s/")[2]
    restart()
    for language in ("en", "de", "fr"):
        page = html.unescape(client.get(link, headers={**HTML, "Accept-Language": language}).text)
        assert CREATOR not in page
        assert "Secret" not in page
        for work_id in gone[asked.get("works", 0) :]:
            assert work_id not in page


@pytest.mark.parametrize(
    ("column", "changes", "hidden"),
    [
        # The works that weren't for everybody are those that were removed.
        ("", {}, True),
        (None, {"work_visibility": "signed-in"}, True),
        (None, {"hide_exposed": 1.0}, True),
        (None, {}, False),
    ],
)
def test_works_that_may_have_been_hidden_stay_so_once_they_are_removed(
    client: TestClient,
    gone: list[str],
    answered: Callable[..., str],
    restart: Callable[..., ServedIndex],
    column: str | None,
    changes: dict[str, Any],
    hidden: bool,
) -> None:
    job_id = answered()
    restart(column, **changes)
    answer = client.get(f"/v1/attributions/{job_id}")
    body = answer.json()
    assert [hidden_id(work["work_id"]) for work in body["works"][:TOP]] == [hidden] * TOP
    assert any(work_id in answer.text for work_id in gone) != hidden
    names = [group["name"] for group in body["groups"]["creator"]]
    assert (CREATOR in names, WITHHELD in names) == (not hidden, hidden)
    assert [work["share"] for work in body["works"]] == sorted(
        (work["share"] for work in body["works"]), reverse=True
    )
    # A removed work has no title, whether it is hidden or not.
    for said in (body["summary"], listed(client, job_id)):
        assert said is not None
        assert "Secret" not in said
        assert CREATOR not in said
    if hidden:
        assert CREATOR not in client.get(f"/a/{job_id}", headers=HTML).text


@pytest.mark.parametrize("left", [True, False])
def test_a_creators_works_stay_hidden_once_they_are_removed(
    client: TestClient,
    service: Service,
    index: AttributionIndex,
    gone: list[str],
    answered: Callable[..., str],
    restart: Callable[..., ServedIndex],
    left: bool,
) -> None:
    """Whose a work was that isn't there any more nobody knows; `left`: others of the creator's are there still."""
    match = {"work_id": gone[0], "verdict": "copy", "score": 0.97, "method": "pdq", "mirrored": False}
    job_id = answered(copy={"verdict": "copy", "score": 0.97, "method": "pdq", "matches": [match]})
    who = index.works.creators[0] if left else CREATOR
    wanted = NewOptOut(owner="local", index_name="tiny", creator=who, contact="a@example.org")
    service.store.opt_outs.create(wanted, LOCAL.actor, hide=True)
    service.visibility.refresh()
    restart()
    for address in ("", "/report.json", "/report.html"):
        told = client.get(f"/v1/attributions/{job_id}{address}")
        assert told.status_code == 200
        assert not any(work_id in told.text for work_id in gone), address
    assert not any(work_id in client.get(f"/a/{job_id}", headers=HTML).text for work_id in gone)


def test_copies_of_a_work_stay_hidden_with_it(
    client: TestClient,
    service: Service,
    gone: list[str],
    answered: Callable[..., str],
    restart: Callable[..., ServedIndex],
) -> None:
    copy = f"{gone[0]}-2"
    places = [{"rank": 1, "work_id": copy, "score": 1.0, "share": 0.2, "percentile": 99.0}]
    job_id = answered(works=places)
    opt_out(service, gone[0])
    restart()
    assert gone[0] not in client.get(f"/v1/attributions/{job_id}").text


def test_who_sees_all_levels_is_told_of_removed_works(
    client: TestClient, service: Service, removed: Path
) -> None:
    later = AttributionIndex.open(removed)
    served = ServedIndex(removed, later)
    settings = service.settings.model_copy(update={"work_visibility": "signed-in", "hide_exposed": 0.0})
    visibility = Visibility(settings, Catalogue([served], None), service.store.opt_outs, service.budgets)
    anybody, signed_in = (visibility.to_viewer(Viewer(who, frozenset())).of(served) for who in (False, True))
    assert signed_in is None
    assert anybody is not None
    assert anybody.work("w_removed")


def test_a_decisions_note_about_a_removed_work_names_it_no_more(
    client: TestClient,
    service: Service,
    gone: list[str],
    answered: Callable[..., str],
    restart: Callable[..., ServedIndex],
) -> None:
    decide_by(client, "removed", LARGE_SHARE)
    match = {"work_id": gone[0], "verdict": "copy", "score": 0.97, "method": "pdq", "mirrored": False}
    job_id = answered(copy={"verdict": "copy", "score": 0.97, "method": "pdq", "matches": [match]})
    decided = client.post("/v1/decisions", json={"policy": "removed", "attribution": job_id}).json()
    assert "“Study no. 0”" in decided["notes"][0]
    restart("")
    told = client.get(decided["links"]["self"])
    assert told.json()["outcome"] == decided["outcome"]
    assert told.json()["notes"][0].startswith(
        "The picture itself is nearly the same as a work that isn't shown"
    )
    assert "Study no. 0" not in told.text


def test_what_was_blocked_isnt_cleared_because_a_work_is_gone(
    client: TestClient,
    index: AttributionIndex,
    answered: Callable[..., str],
    restart: Callable[..., ServedIndex],
) -> None:
    when = {"top.creator": {"known": True, "in": [index.works.creators[0]]}}
    decide_by(client, "gone", {"code": "theirs", "outcome": "block", "when": when})
    likely = {"verdict": "likely", "p_value": 0.4, "p_value_re_encoded": 0.5, "references": 100}
    asked = {"policy": "gone", "attribution": answered(in_model=likely)}
    assert client.post("/v1/decisions", json=asked).json()["outcome"] == "block"
    restart()
    assert client.post("/v1/decisions", json=asked).json()["outcome"] == "indeterminate"


def test_nor_does_it_where_nothing_is_hidden(
    client: TestClient, gone: list[str], answered: Callable[..., str], restart: Callable[..., ServedIndex]
) -> None:
    decide_by(client, "open", LARGE_SHARE)
    match = {"work_id": gone[0], "verdict": "copy", "score": 0.97, "method": "pdq", "mirrored": False}
    job_id = answered(copy={"verdict": "copy", "score": 0.97, "method": "pdq", "matches": [match]})
    decided = client.post("/v1/decisions", json={"policy": "open", "attribution": job_id}).json()
    assert "“Study no. 0”" in decided["notes"][0]
    restart()
    for language in ("en", "de", "fr"):
        spoken = {"Accept-Language": language}
        told = client.get(decided["links"]["self"], headers=spoken).json()
        answer = client.get(decided["links"]["attribution"], headers=spoken).json()
        assert told["notes"][0] == answer["copy"]["summary"]
        assert "Study no. 0" not in told["notes"][0]


def test_what_a_client_kept_before_a_restart_isnt_right_once_another_version_is_served(
    client: TestClient, answered: Callable[..., str], restart: Callable[..., ServedIndex]
) -> None:
    address = f"/v1/attributions/{answered()}"
    kept = {"If-None-Match": client.get(address).headers["ETag"]}
    assert client.get(address, headers=kept).status_code == 304
    restart()
    now = client.get(address, headers=kept)
    assert now.status_code == 200
    assert now.json()["works"][0]["title"] is None
    again = {"If-None-Match": now.headers["ETag"]}
    assert client.get(address, headers=again).status_code == 304
    # The same version by another rule is another answer too.
    restart(hide_exposed=5.0)
    assert client.get(address, headers=again).status_code == 200


def test_a_list_names_nobody_whom_the_answer_doesnt(
    client: TestClient,
    service: Service,
    index: AttributionIndex,
    gone: list[str],
    answered: Callable[..., str],
    restart: Callable[..., ServedIndex],
) -> None:
    """An opt-out of works that are gone, which leaves the first work's row and its sentence's creator alone."""
    others = f"The three works by {CREATOR} account for 50 % of the measured influence among 40 works."
    shown = index.works.column("id")[TOP]
    places = [{"rank": 1, "work_id": shown, "score": 1.0, "share": 0.2, "percentile": 99.0}]
    job_id = answered(summary=others, works=places)
    assert listed(client, job_id) == others
    restart()
    opt_out(service, gone[0])
    told = client.get(f"/v1/attributions/{job_id}").json()
    assert CREATOR not in str(told)
    assert listed(client, job_id) == told["summary"]


def test_a_list_has_no_sentence_of_an_answer_by_row(
    client: TestClient, store: JobStore, answered: Callable[..., str], restart: Callable[..., ServedIndex]
) -> None:
    job_id = answered()
    with store.database.write() as session:
        result = json.loads(
            session.execute(text("SELECT result FROM jobs WHERE id = :id"), {"id": job_id}).scalar_one()
        )
        result["works"] = [{"row": row, "score": 2.0, "share": 0.5, "percentile": 90.0} for row in (0, 1)]
        session.execute(
            text("UPDATE jobs SET result = :result, by_row = 1, version = version + 1 WHERE id = :id"),
            {"result": json.dumps(result), "id": job_id},
        )
    restart()
    assert client.get(f"/v1/attributions/{job_id}").json()["summary"] is None
    assert listed(client, job_id) is None
