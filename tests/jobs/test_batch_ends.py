"""`batch.finished`: written with the end of a batch's last item, whichever way that ends, once."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select

from jobs.batch_rows import BatchSummary, ItemClaim, NewItem
from jobs.batches import MAX_AGE, Batches, is_open
from jobs.models import Job, NewJob, utc_now
from jobs.store import JobStore
from jobs.turns import BULK_PRIORITY
from jobs.webhooks.models import WebhookDelivery, WebhookEvent

INDEX = "photographs@3f9c2a"
ASKED = {"index": INDEX}
PROBLEM = {"code": "image-refused", "detail": "It is no picture.", "reason": "unknown"}
Batch = Callable[..., BatchSummary]


@pytest.fixture
def batches(store: JobStore) -> Batches:
    return Batches(store)


@pytest.fixture
def batch(store: JobStore, batches: Batches) -> Batch:
    """A new batch of an owner who hears of the ends of batches."""
    store.webhook_endpoints.create("ada", "https://ada.example/hook", [WebhookEvent.BATCH_FINISHED], None)

    def batch(pictures: int, refused: int = 0) -> BatchSummary:
        items = [NewItem(ASKED, None, b"picture") for _ in range(pictures)]
        return batches.create("ada", [*items, *(NewItem(ASKED, problem=PROBLEM) for _ in range(refused))])

    return batch


def taken(batches: Batches) -> ItemClaim:
    claim = batches.take()
    assert claim is not None
    return claim


def make(store: JobStore, batches: Batches, png: bytes) -> Job:
    """What the app does with the next item."""
    claim = taken(batches)
    new = NewJob(
        owner=claim.owner, index_id=INDEX, method="das-block", candidates="all", top_k=20, priority=BULK_PRIORITY,
        input={"sha256": "ab" * 32, "width": 32, "height": 32, "format": "png", "normalisation": []},
    )  # fmt: skip
    job = store.create(new, png, item=claim)
    batches.ended(claim)
    return job


def told(store: JobStore) -> list[tuple[str, str]]:
    """The batches that were told of, and in which state."""
    with store.database.read() as session:
        rows = session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id)).all()
    said = [json.loads(row.body) for row in rows]
    assert {one["type"] for one in said} <= {"batch.finished"}
    return [(one["data"]["id"], one["data"]["state"]) for one in said]


def lease(store: JobStore) -> str:
    (job,) = store.leases.claim("worker", 1, [INDEX])
    return job.token


def test_it_is_told_with_the_last_of_its_pictures(
    store: JobStore, batches: Batches, batch: Batch, png: bytes
) -> None:
    made = batch(4, refused=1)
    assert store.leases.finish(_made(store, batches, png), {"works": []}, {})
    batches.fail(taken(batches), PROBLEM)
    assert store.leases.fail(_made(store, batches, png), "It broke.", "broken")
    last = _made(store, batches, png)
    assert told(store) == []
    assert not store.leases.finish("another's token", {}, {})
    assert store.leases.finish(last, {"works": []}, {})
    assert told(store) == [(made.id, "finished")]
    with store.database.read() as session:
        row = session.scalars(select(WebhookDelivery)).one()
    address = f"/v1/attribution-batches/{made.id}"
    assert json.loads(row.body)["data"]["links"] == {"self": address, "results": f"{address}/results.jsonl"}


def _made(store: JobStore, batches: Batches, png: bytes) -> str:
    """The lease of the question that the next item has become."""
    make(store, batches, png)
    return lease(store)


def last_fails(store: JobStore, batches: Batches, png: bytes) -> None:
    assert store.leases.fail(_made(store, batches, png), "It broke.", "broken")


def last_is_cancelled(store: JobStore, batches: Batches, png: bytes) -> None:
    store.cancel(make(store, batches, png).id, "ada")


def last_is_erased(store: JobStore, batches: Batches, png: bytes) -> None:
    store.erase(make(store, batches, png).id, "ada")


def last_is_refused(_store: JobStore, batches: Batches, _png: bytes) -> None:
    assert batches.fail(taken(batches), PROBLEM)


def last_waited_too_long(_store: JobStore, batches: Batches, _png: bytes) -> None:
    assert batches.take(utc_now() + MAX_AGE + timedelta(seconds=1)) is None


def last_is_held_by_no_index(store: JobStore, batches: Batches, png: bytes) -> None:
    make(store, batches, png)
    store.leases.fail_waiting(INDEX, "No worker.", "index-unheld")


def last_is_given_up(store: JobStore, batches: Batches, png: bytes) -> None:
    token = _made(store, batches, png)
    for _ in range(store.settings.max_attempts - 1):
        store.leases.release([token], "its process was killed")
        assert told(store) == []
        token = lease(store)
    store.leases.release_expired(utc_now() + timedelta(hours=1))


@pytest.mark.parametrize(
    "end",
    [
        last_fails, last_is_cancelled, last_is_erased, last_is_refused, last_waited_too_long,
        last_is_held_by_no_index, last_is_given_up,
    ],
)  # fmt: skip
def test_whichever_way_the_last_one_ends(
    store: JobStore,
    batches: Batches,
    batch: Batch,
    png: bytes,
    end: Callable[[JobStore, Batches, bytes], None],
) -> None:
    made = batch(2)
    assert store.leases.finish(_made(store, batches, png), {"works": []}, {})
    end(store, batches, png)
    assert told(store) == [(made.id, "finished")]
    # What is done to it afterwards ends nothing.
    for item in batches.items(made.id, 0, 10):
        if item.job is not None and item.state != "erased":
            store.cancel(item.job.id)
            store.erase(item.job.id)
    batches.cancel(made.id, "ada")
    assert told(store) == [(made.id, "finished")]


def test_a_batch_of_which_nothing_can_be_used_has_ended_when_it_is_accepted(
    store: JobStore, batch: Batch
) -> None:
    made = batch(0, refused=2)
    assert told(store) == [(made.id, "finished")]


def test_a_cancelled_one_is_told_of_once_whether_its_pictures_were_read_or_not(
    store: JobStore, batches: Batches, batch: Batch, png: bytes
) -> None:
    unread, read = batch(3), batch(3)
    batches.cancel(unread.id, "ada")
    assert told(store) == [(unread.id, "cancelled")]
    for _ in range(2):
        make(store, batches, png)
    for _ in range(2):
        batches.cancel(read.id, "ada")
    assert told(store) == [(unread.id, "cancelled"), (read.id, "cancelled")]


def test_of_an_erased_batch_nothing_is_told(
    store: JobStore, batches: Batches, batch: Batch, png: bytes
) -> None:
    finished, running = batch(1), batch(2)
    batches.fail(taken(batches), PROBLEM)
    assert told(store) == [(finished.id, "finished")]
    make(store, batches, png)
    for made in (finished, running):
        batches.erase(made.id, "ada")
    assert told(store) == []


def test_only_its_owner_hears_of_it(store: JobStore, batches: Batches, batch: Batch) -> None:
    store.webhook_endpoints.create("eve", "https://eve.example/hook", None, None)
    store.webhook_endpoints.create("ada", "https://ada.example/failures", [WebhookEvent.FAILED], None)
    made = batch(0, refused=1)
    batches.create("bob", [NewItem(ASKED, problem=PROBLEM)])
    assert told(store) == [(made.id, "finished")]


def test_questions_of_many_batches_that_end_together(
    store: JobStore, batches: Batches, batch: Batch, png: bytes
) -> None:
    made = [batch(2) for _ in range(3)]
    for _ in range(6):
        make(store, batches, png)
    store.leases.fail_waiting(INDEX, "No worker.", "index-unheld")
    assert sorted(told(store)) == sorted((one.id, "finished") for one in made)


def test_however_many_end_its_pictures_at_once_it_is_told_once(
    store: JobStore, batches: Batches, batch: Batch, png: bytes
) -> None:
    """Workers that finish, the owner who cancels and erases, the unpacker that refuses: none waits for another."""
    made = [batch(4) for _ in range(6)]
    for _ in range(18):
        make(store, batches, png)
    jobs = store.leases.claim("worker", 100, [INDEX])
    while more := store.leases.claim("worker", 100, [INDEX]):
        jobs += more
    waiting = [taken(batches) for _ in range(6)]
    together = threading.Barrier(6)

    def end(number: int) -> None:
        together.wait(30)
        for place, job in enumerate(jobs[number::6]):
            if place == 0:
                store.cancel(job.id)
            elif place == 1:
                store.erase(job.id)
            else:
                store.leases.finish(job.token, {"works": []}, {})
        batches.fail(waiting[number], PROBLEM)
        batches.cancel(made[number].id, "ada")

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(end, range(6)))
    assert not [one for one in made if (now := batches.get(one.id)) is None or is_open(now)]
    assert sorted(batch_id for batch_id, _state in told(store)) == sorted(one.id for one in made)
