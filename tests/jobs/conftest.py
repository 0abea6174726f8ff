"""Real parts for the job tests: a database of one's own and, where asked for, a broker."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.broker import Broker
from jobs.database import upgrade
from jobs.models import Job, NewJob
from jobs.settings import Settings
from jobs.store import JobStore
from tests.postgres import PostgresServer


@pytest.fixture
def png() -> bytes:
    """The image of a job; nobody here looks into it."""
    return b"\x89PNG\r\n\x1a\n the pixels of a test"


# What is said of jobs holds on either database, so these modules' tests are made on both.
ON_EVERY_DATABASE = (
    "test_batch_ends",
    "test_audit_log",
    "test_batches_store",
    "test_claims",
    "test_database",
    "test_decisions_store",
    "test_idempotent_requests",
    "test_keys",
    "test_overview",
    "test_pace",
    "test_migrations",
    "test_opt_outs_store",
    "test_policies_store",
    "test_retention",
    "test_revealed",
    "test_session_rows",
    "test_shares_store",
    "test_store",
    "test_sweeper",
    "test_turns",
    "test_webhook_outbox",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "dialect" not in metafunc.fixturenames:
        return
    module = metafunc.module.__name__.rsplit(".", 1)[-1]
    sqlite_only = metafunc.definition.get_closest_marker("sqlite") is not None
    if module in ON_EVERY_DATABASE and not sqlite_only:
        metafunc.parametrize("dialect", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def dialect(request: pytest.FixtureRequest) -> str:
    """The kind of database that a test is made on."""
    return getattr(request, "param", "sqlite")


@pytest.fixture
def database_url(dialect: str, request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The URL of a database of one's own; None for SQLite in the data directory."""
    if dialect == "sqlite":
        yield None
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    with server.database() as url:
        yield url


@pytest.fixture
def settings(tmp_path: Path, database_url: str | None) -> Settings:
    return Settings(
        _env_file=None,
        data_dir=tmp_path / "data",
        index_dir=tmp_path / "index",
        database_url=database_url,
    )


@pytest.fixture
def announced() -> list[tuple[str, int]]:
    """What was announced to waiting readers: job id and version."""
    return []


@pytest.fixture
def store(settings: Settings, announced: list[tuple[str, int]]) -> Iterator[JobStore]:
    upgrade(settings)
    store = JobStore(settings, notify=lambda job_id, version: announced.append((job_id, version)))
    yield store
    store.close()


@pytest.fixture
def broker(settings: Settings) -> Iterator[Broker]:
    broker = Broker(settings)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def ask(store: JobStore, png: bytes) -> Callable[..., Job]:
    """Create a job; keywords replace what doesn't matter to the test."""

    def ask(image: bytes = png, **changes: object) -> Job:
        question = {
            "index_id": "photographs@3f9c2a",
            "method": "das-block",
            "candidates": "all",
            "top_k": 20,
            "input": {"sha256": "ab" * 32, "width": 32, "height": 32, "format": "png", "normalisation": []},
        }
        return store.create(NewJob(**{**question, **changes}), image)  # type: ignore[arg-type]

    return ask
