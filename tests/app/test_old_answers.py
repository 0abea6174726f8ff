"""Answers that an earlier version stored, and answers about works that an index no longer has."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text
from starlette.testclient import TestClient

from app.main import create_app
from das.answer import HIDDEN_PREFIX, NOT_IN_MODEL
from das.index import AttributionIndex
from jobs.database import MIGRATIONS, open_engine, upgrade
from jobs.settings import Settings
from jobs.store import JobStore

ROWS = (7, 0, 31)
DONE, GONE, WAITING = (f"att_{letter * 32}" for letter in "abc")
INPUT = {"sha256": "ab" * 32, "width": 8, "height": 8, "format": "PNG", "normalisation": []}


@pytest.fixture
def old(tmp_path: Path, tiny_index: Path) -> Settings:
    """A data directory as release 0.1.0 left it, with questions by row, brought up to date."""
    settings = Settings(_env_file=None, data_dir=tmp_path / "data", index_dir=tiny_index)
    settings.prepare_data_dir()
    index_id = AttributionIndex.open(tiny_index).id
    engine = open_engine(settings, pooled=False)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        for number, (job_id, state, index) in enumerate(
            [
                (DONE, "succeeded", index_id),
                (GONE, "succeeded", "elsewhere@123456"),
                (WAITING, "queued", index_id),
            ]
        ):
            row = {
                "id": job_id, "state": state, "version": 4, "created_at": datetime(2026, 1, 31, 12, number),
                "index_id": index, "method": "das-block", "candidates": "3", "top_k": 2,
                "input": json.dumps(INPUT),
                "lookalikes": json.dumps([{"row": row, "similarity": 0.5} for row in ROWS]),
                "candidate_rows": json.dumps(ROWS), "stage": "screened", "progress_done": 0, "progress_total": 0,
                "attempt": 0, "result": json.dumps(result()) if state == "succeeded" else None,
            }  # fmt: skip
            columns, values = ", ".join(row), ", ".join(f":{name}" for name in row)
            connection.execute(text(f"INSERT INTO jobs ({columns}) VALUES ({values})"), row)
    engine.dispose()
    upgrade(settings)
    return settings


def result() -> dict[str, object]:
    works = [{"row": row, "score": 2.0, "share": 0.5, "percentile": 90.0} for row in ROWS[:2]]
    return {
        "method": "das-block",
        "candidates": {"mode": "screened", "count": 3},
        "works": works,
        "groups": {"creator": []},
        "summary": "Two works.",
        "timings_ms": {},
    }


def test_answers_by_row_are_told_by_work_id(old: Settings, tiny_index: Path) -> None:
    index = AttributionIndex.open(tiny_index)
    ids = index.works.column("id")
    asked = [ids[row] for row in ROWS]
    store = JobStore(old, notify=lambda job_id, version: None)
    assert store.leases.claim("early", 8, [index.id]) == [], "rows are no ids: not before the index is open"
    with TestClient(create_app(old), "http://127.0.0.1") as client:
        answer = client.get(f"/v1/attributions/{DONE}").json()
        assert [(work["rank"], work["work_id"]) for work in answer["works"]] == [*enumerate(asked[:2], 1)]
        assert [work["title"] for work in answer["works"]] == ["Study no. 7", "Study no. 0"]
        assert answer["works"][0]["similarity"] == 0.5
        assert [work["work_id"] for work in answer["lookalikes"]] == asked
        assert client.get(f"/a/{DONE}").status_code == 200

        elsewhere = client.get(f"/v1/attributions/{GONE}").json()
        assert (elsewhere["works"], elsewhere["lookalikes"]) == (None, None)
        assert "elsewhere@123456 is no longer served" in elsewhere["notes"][0]
        assert "stored by an earlier version" in elsewhere["notes"][1]
        assert NOT_IN_MODEL in elsewhere["notes"]
        assert client.get(f"/a/{GONE}").status_code == 200
    (claimed,) = store.leases.claim("worker", 8, [index.id])
    assert (claimed.id, claimed.candidate_works) == (WAITING, asked)
    store.close()


def test_works_that_an_index_no_longer_has_keep_id_score_and_share(old: Settings) -> None:
    store = JobStore(old, notify=lambda job_id, version: None)
    with TestClient(create_app(old), "http://127.0.0.1") as client:
        with store.database.write() as session:
            for job_id, work_id in ((DONE, "w_gone"), (GONE, "w_kept")):
                session.execute(
                    text(
                        "UPDATE jobs SET result = :result, lookalikes = :lookalikes, by_row = 0 WHERE id = :id"
                    ),
                    {
                        "id": job_id,
                        "result": json.dumps(
                            {
                                **result(),
                                "works": [{"rank": 1, "work_id": work_id, "score": 2.0, "share": 1.0}],
                            }
                        ),
                        "lookalikes": json.dumps([{"work_id": work_id, "similarity": 0.25}]),
                    },
                )
        answer = client.get(f"/v1/attributions/{DONE}").json()
        (work,) = answer["works"]
        assert (work["work_id"], work["score"], work["share"], work["similarity"]) == (
            "w_gone",
            2.0,
            1.0,
            0.25,
        )
        assert {work[name] for name in ("title", "creator", "licence", "source_url", "thumbnail")} == {None}
        assert "1 of the works named here are no longer in the index" in answer["notes"][0]
        page = client.get(f"/a/{DONE}")
        assert page.status_code == 200
        assert "w_gone" in page.text

        # Where the whole index is no longer served nobody knows who may see the work.
        elsewhere = client.get(f"/v1/attributions/{GONE}").json()
        assert elsewhere["works"][0]["work_id"] == f"{HIDDEN_PREFIX}1"
        assert (elsewhere["works"][0]["score"], elsewhere["works"][0]["share"]) == (2.0, 1.0)
        assert elsewhere["works"][0]["title"] is None
        assert client.get(f"/a/{GONE}").status_code == 200
    store.close()
