"""The schema's way forward and back, with jobs in it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.orm import Session

from jobs.database import MIGRATIONS, open_engine
from jobs.decisions import Decision
from jobs.settings import Settings

MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    settings.prepare_data_dir()
    engine = open_engine(settings, pooled=False)
    yield engine
    engine.dispose()


def migrate(engine: Engine, way: str, revision: str) -> None:
    """Bring the database up or down to a revision, as `jobs.database.upgrade` brings it to the newest."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        getattr(command, way)(config, revision)


def add_job(connection: Connection, **columns: object) -> None:
    """A row of jobs by raw SQL, as a release with these columns wrote it."""
    row = {
        "id": "att_1", "state": "queued", "version": 1, "created_at": MOMENT.replace(tzinfo=None),
        "index_id": "photographs@3f9c2a", "method": "das-block", "candidates": "all", "top_k": 20,
        "input": '{"sha256": "ab"}', "stage": "received", "progress_done": 0, "progress_total": 0, "attempt": 0,
        **columns,
    }  # fmt: skip
    names = ", ".join(row)
    values = ", ".join(f":{name}" for name in row)
    connection.execute(text(f"INSERT INTO jobs ({names}) VALUES ({values})"), row)


def rows(engine: Engine) -> list[dict[str, object]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text("SELECT * FROM jobs ORDER BY id")).mappings()]


def test_a_job_of_the_first_release_becomes_the_local_callers(engine: Engine) -> None:
    migrate(engine, "upgrade", "0002")
    with engine.begin() as connection:
        add_job(connection, prompt="a prompt", seed=7)
    before = rows(engine)
    migrate(engine, "upgrade", "0003")
    (job,) = rows(engine)
    assert (job["owner"], job["priority"], job["prompt"], job["seed"]) == ("local", 0, "a prompt", 7)
    migrate(engine, "downgrade", "0002")
    assert rows(engine) == before


def test_a_review_of_an_earlier_release_is_the_first_of_a_decisions_reviews(engine: Engine) -> None:
    migrate(engine, "upgrade", "0017")
    review = {"outcome": "block", "note": "Ünlike", "by": "me", "at": "2026-01-31T12:00:00+00:00"}
    with engine.begin() as connection:
        for number, said in enumerate((json.dumps(review), None)):
            connection.execute(
                text(
                    "INSERT INTO decisions (id, owner, job_id, policy_id, version, state, created_at, review)"
                    " VALUES (:id, 'me', 'att_1', 'p', 1, 'decided', :at, :review)"
                ),
                {"id": f"dec_{number}", "at": MOMENT.replace(tzinfo=None), "review": said},
            )
    migrate(engine, "upgrade", "0020")
    with Session(engine) as session:
        told = session.execute(select(Decision.review, Decision.reviews).order_by(Decision.id)).all()
    assert [tuple(row) for row in told] == [(review, [review]), (None, None)]
    migrate(engine, "downgrade", "0017")


def test_every_way_back_leads_to_an_empty_database(engine: Engine) -> None:
    migrate(engine, "upgrade", "head")
    migrate(engine, "downgrade", "base")
    with engine.connect() as connection:
        tables = connection.dialect.get_table_names(connection)
    assert tables == ["alembic_version"]
    migrate(engine, "upgrade", "head")
    assert rows(engine) == []
