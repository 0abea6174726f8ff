"""Keys of requests: claimed once, completed with what they made, taken over, forgotten."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text

from jobs.errors import KeyReused, QueueFull, RequestInFlight
from jobs.idempotency import CLAIM_SECONDS, Claim, fingerprint, key_id
from jobs.models import Job, NewJob, utc_now
from jobs.settings import Settings
from jobs.store import JobStore

ROW = key_id("local", "a key")
REQUEST = fingerprint("a key", [b"POST", b"/v1/attributions", b"picture"])
QUESTION = {
    "index_id": "i@1",
    "method": "das",
    "candidates": "all",
    "top_k": 1,
    "input": {"sha256": "ab" * 32},
}


def claimed(store: JobStore) -> Claim:
    claim = store.idempotency.claim(ROW, REQUEST)
    assert isinstance(claim, Claim)
    return claim


def age(store: JobStore, seconds: float) -> None:
    """Let the claims be so much older."""
    with store.database.write() as session:
        for row in session.execute(text("SELECT id, claimed_at FROM idempotent_requests")).all():
            moment = utc_now() - timedelta(seconds=seconds)
            if session.get_bind().dialect.name == "sqlite":
                moment = moment.replace(tzinfo=None)
            session.execute(
                text("UPDATE idempotent_requests SET claimed_at = :at WHERE id = :id"),
                {"at": moment, "id": row.id},
            )


def test_keys_of_two_owners_and_two_requests_are_told_apart() -> None:
    assert (
        len({key_id("a", "b"), key_id("b", "a"), key_id("a", "c"), key_id("ab", ""), key_id("", "ab")}) == 5
    )
    assert fingerprint("k", [b"ab", b"c"]) != fingerprint("k", [b"a", b"bc"])
    assert fingerprint("k", [b"a"]) != fingerprint("l", [b"a"])
    assert fingerprint("k", [b"a"]) == fingerprint("k", [b"a"])


def test_a_completed_claim_answers_with_what_was_made(png: bytes, store: JobStore) -> None:
    claim = claimed(store)
    assert not store.idempotency.known(ROW)
    with pytest.raises(RequestInFlight) as flying:
        store.idempotency.claim(ROW, REQUEST)
    assert flying.value.retry_seconds == 1
    job = store.create(NewJob(**QUESTION), png, claim)
    assert store.idempotency.claim(ROW, REQUEST) == job.id
    assert store.idempotency.known(ROW)
    store.idempotency.release(claim)
    assert store.idempotency.claim(ROW, REQUEST) == job.id
    with pytest.raises(KeyReused):
        store.idempotency.claim(ROW, fingerprint("a key", [b"another"]))


def test_a_released_claim_leaves_nothing(store: JobStore) -> None:
    store.idempotency.release(claimed(store))
    with store.database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM idempotent_requests")) == 0
    assert isinstance(store.idempotency.claim(ROW, fingerprint("a key", [b"mended"])), Claim)


def test_a_key_in_flight_is_refused_another_request(store: JobStore) -> None:
    claimed(store)
    with pytest.raises(KeyReused):
        store.idempotency.claim(ROW, fingerprint("a key", [b"another"]))


def test_a_job_that_cannot_be_made_completes_nothing(
    png: bytes, settings: Settings, store: JobStore, ask: Callable[..., Job]
) -> None:
    ask()
    small = JobStore(settings.model_copy(update={"queue_limit": 1}), database=store.database, notify=print)
    claim = claimed(store)
    with pytest.raises(QueueFull):
        small.create(NewJob(**QUESTION), png, claim)
    assert not store.idempotency.known(ROW)


def test_a_claim_whose_process_died_is_taken_over_and_makes_one_job(png: bytes, store: JobStore) -> None:
    first = claimed(store)
    age(store, CLAIM_SECONDS - 5)
    with pytest.raises(RequestInFlight):
        store.idempotency.claim(ROW, REQUEST)
    age(store, CLAIM_SECONDS + 1)
    second = claimed(store)
    # The first one wasn't dead but slow: what it would make is undone, its picture too.
    with pytest.raises(RequestInFlight):
        store.create(NewJob(**QUESTION), png, first)
    store.idempotency.release(first)
    job = store.create(NewJob(**QUESTION), png, second)
    assert [shown.id for shown in store.list().jobs] == [job.id]
    assert {path.stem for path in (store.settings.data_dir / "blobs").iterdir()} == {job.id}


def test_many_at_once_make_one_job(png: bytes, store: JobStore) -> None:
    def send(_: int) -> str:
        try:
            claim = store.idempotency.claim(ROW, REQUEST)
        except RequestInFlight:
            return "in flight"
        return claim if isinstance(claim, str) else store.create(NewJob(**QUESTION), png, claim).id

    with ThreadPoolExecutor(20) as threads:
        told = set(threads.map(send, range(20)))
    (job,) = store.list().jobs
    assert told <= {job.id, "in flight"}


def test_a_key_is_forgotten_when_its_time_is_over(
    png: bytes, settings: Settings, store: JobStore, ask: Callable[..., Job]
) -> None:
    job = store.create(NewJob(**QUESTION), png, claimed(store))
    age(store, settings.idempotency_seconds - 60)
    store.upkeep.tidy()
    assert store.idempotency.claim(ROW, REQUEST) == job.id
    age(store, settings.idempotency_seconds + 1)
    assert not store.idempotency.known(ROW)
    # Before it is swept, too, and whatever is asked.
    assert isinstance(store.idempotency.claim(ROW, fingerprint("a key", [b"another"])), Claim)
    age(store, settings.idempotency_seconds + 1)
    store.upkeep.tidy()
    with store.database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM idempotent_requests")) == 0
    assert store.idempotency.forget_old() == 0


def test_an_erased_job_keeps_its_key_used_and_no_digest_of_what_was_sent(png: bytes, store: JobStore) -> None:
    job = store.create(NewJob(**QUESTION), png, claimed(store))
    store.erase(job.id)
    with store.database.read() as session:
        (row,) = session.execute(text("SELECT * FROM idempotent_requests")).mappings().all()
    assert (row["fingerprint"], row["made"]) == ("", job.id)
    for path in store.settings.data_dir.rglob("*"):
        if path.is_file():
            assert REQUEST.encode() not in path.read_bytes()
    # A retry that comes late is told that it is gone, and makes no second job.
    assert store.idempotency.claim(ROW, REQUEST) == job.id
