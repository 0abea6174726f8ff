"""Batches in the database: accepted at once, read in turns, each item ended once, erased with their jobs."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import event

from jobs.audit import SERVICE, Actor, AuditFilters
from jobs.batch_rows import BatchNotFound, ItemClaim, ItemLost, NewItem
from jobs.batches import Batches, BatchFilters, is_open
from jobs.blobs import UPLOAD
from jobs.errors import QueueFull, RequestInFlight
from jobs.idempotency import Claim, fingerprint, key_id
from jobs.models import Job, NewJob, utc_now
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.turns import BULK_PRIORITY

Ask = Callable[..., Job]
HELD = ("photographs@3f9c2a",)
ASKED = {"index": HELD[0], "client_tag": "mine"}


@pytest.fixture
def batches(store: JobStore) -> Batches:
    return Batches(store)


def pictures(count: int, name: str = "p") -> list[NewItem]:
    return [NewItem(ASKED, f"{name}{number}", b"picture %d" % number) for number in range(1, count + 1)]


def question(**changes: object) -> NewJob:
    given = {
        "index_id": HELD[0], "method": "das-block", "candidates": "all", "top_k": 20, "priority": BULK_PRIORITY,
        "input": {"sha256": "ab" * 32, "width": 32, "height": 32, "format": "png", "normalisation": []}, **changes,
    }  # fmt: skip
    return NewJob(**given)  # type: ignore[arg-type]


def make(store: JobStore, batches: Batches, png: bytes, claim: ItemClaim) -> Job:
    """What the app does with an item that can be read."""
    job = store.create(question(owner=claim.owner), png, item=claim)
    batches.ended(claim)
    return job


def taken(batches: Batches) -> ItemClaim:
    claim = batches.take()
    assert claim is not None
    return claim


def test_a_batch_is_accepted_with_all_of_its_items(batches: Batches, store: JobStore) -> None:
    problem = {"code": "too-large", "detail": "An image may have at most 25 MB."}
    items = [
        *pictures(2),
        NewItem(ASKED, "far", address="https://x.example/a.png"),
        NewItem(ASKED, problem=problem),
    ]
    batch = batches.create("ada", items, "mine")
    assert (batch.size, batch.counts) == (4, {"waiting": 3, "failed": 1})
    assert is_open(batch)
    told = batches.items(batch.id, 0, 10)
    assert [(item.position, item.name, item.state) for item in told] == [
        (1, "p1", "waiting"), (2, "p2", "waiting"), (3, "far", "waiting"), (4, None, "failed"),
    ]  # fmt: skip
    assert told[3].problem == problem
    assert batches.picture(taken(batches)) == b"picture 1"
    assert [item.position for item in batches.items(batch.id, 2, 1)] == [3]
    assert batches.get(batch.id, "eve") is None


@pytest.mark.sqlite
def test_a_batch_and_its_items_are_of_one_moment(batches: Batches, store: JobStore, png: bytes) -> None:
    """Also where one of them becomes a question between the two looks at it."""
    batch = batches.create("ada", pictures(2))
    claims = [taken(batches)]

    def go_on(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if claims and "count(*)" in statement:
            make(store, batches, png, claims.pop())

    event.listen(store.database.engine, "after_cursor_execute", go_on)
    try:
        found = batches.get_with_items(batch.id, "ada", 0, 10)
    finally:
        event.remove(store.database.engine, "after_cursor_execute", go_on)
    assert not claims
    assert found is not None
    assert (found[0].counts, [item.state for item in found[1]]) == ({"waiting": 2}, ["waiting"] * 2)
    now = batches.get_with_items(batch.id, "ada", 1, 10)
    assert now is not None
    assert (now[0].counts, [item.position for item in now[1]]) == ({"waiting": 1, "queued": 1}, [2])
    assert batches.get_with_items(batch.id, "eve", 0, 10) is None


def test_an_item_becomes_one_job_and_its_upload_goes(batches: Batches, store: JobStore, png: bytes) -> None:
    batch = batches.create("ada", pictures(1))
    claim = taken(batches)
    assert batches.take() is None, "it is held"
    job = make(store, batches, png, claim)
    with pytest.raises(ItemLost):
        make(store, batches, png, claim)
    assert [listed.id for listed in store.list().jobs] == [job.id]
    assert store.blobs.settled_ids(timedelta(0), UPLOAD) == []
    (claimed,) = store.leases.claim("worker", 1, HELD)
    assert store.leases.finish(claimed.token, {"works": [], "summary": "So it is."}, {})
    done = batches.get(batch.id)
    assert done is not None
    assert (done.counts, is_open(done)) == ({"succeeded": 1}, False)
    (item,) = batches.items(batch.id, 0, 10)
    assert item.job is not None
    assert (item.job.id, item.job.summary) == (job.id, "So it is.")
    assert batches.jobs_of(batch.id, [1])[1].id == job.id


def test_the_version_grows_with_every_change(batches: Batches, store: JobStore, png: bytes) -> None:
    batch = batches.create("ada", pictures(2))
    versions = [batch.version]

    def seen() -> None:
        found = batches.get(batch.id)
        assert found is not None
        versions.append(found.version)

    job = make(store, batches, png, taken(batches))
    seen()
    batches.fail(taken(batches), {"code": "svg", "detail": "no"})
    seen()
    (claimed,) = store.leases.claim("worker", 1, HELD)
    seen()
    store.leases.finish(claimed.token, {"works": []}, {})
    seen()
    store.erase(job.id)
    seen()
    assert versions == sorted(set(versions))


def test_what_was_held_by_a_killed_process_is_taken_again_and_given_up_at_last(
    batches: Batches, settings: Settings
) -> None:
    batch = batches.create("ada", pictures(1))
    now = utc_now()
    for attempt in range(settings.max_attempts):
        claim = batches.take(now + timedelta(seconds=31 * attempt))
        assert claim is not None
        assert claim.attempt == attempt + 1
    assert batches.take(now + timedelta(seconds=20)) is None
    assert batches.take(now + timedelta(seconds=200)) is None
    (item,) = batches.items(batch.id, 0, 10)
    assert item.state == "failed"
    assert item.problem is not None
    assert item.problem["code"] == "attempts-exhausted"


def test_an_item_that_is_put_back_has_lost_no_attempt(batches: Batches) -> None:
    batches.create("ada", pictures(1))
    for _ in range(9):
        claim = taken(batches)
        assert claim.attempt == 1
        batches.put_back(claim, 0)
    batches.put_back(taken(batches), 60)
    assert batches.take() is None


def test_a_held_item_stays_held_while_it_is_renewed(batches: Batches) -> None:
    batches.create("ada", pictures(1))
    claim = taken(batches)
    batches.renew([claim.token])
    assert batches.take(utc_now() + timedelta(seconds=25)) is None
    assert batches.take(utc_now() + timedelta(seconds=35)) is not None
    assert not batches.fail(claim, {"code": "svg", "detail": "no"}), "whoever was too slow changes nothing"


def test_an_item_that_waited_for_a_day_fails(batches: Batches) -> None:
    batch = batches.create("ada", pictures(1))
    assert batches.take(utc_now() + timedelta(hours=25)) is None
    (item,) = batches.items(batch.id, 0, 10)
    assert (item.problem or {})["code"] == "waited-too-long"


def test_owners_take_turns_at_being_read(batches: Batches) -> None:
    batches.create("bulk", pictures(6))
    batches.create("bulk", pictures(2))
    first = [taken(batches).owner for _ in range(3)]
    batches.create("ada", pictures(2))
    assert first == ["bulk"] * 3
    rest = [taken(batches).owner for _ in range(7)]
    assert sorted(rest[:4]) == ["ada", "ada", "bulk", "bulk"]
    assert rest[4:] == ["bulk"] * 3


def test_too_many_waiting_are_refused_and_nothing_is_left(batches: Batches, store: JobStore) -> None:
    store.settings = store.settings.model_copy(update={"batch_items_limit": 10})
    batches = Batches(store)
    batches.create("ada", pictures(4))
    with pytest.raises(QueueFull, match="5 of your pictures"):
        batches.create("ada", pictures(3))
    batches.create("eve", pictures(4))
    with pytest.raises(QueueFull, match="10 pictures"):
        batches.create("bob", pictures(3))
    assert len(store.blobs.settled_ids(timedelta(0), UPLOAD)) == 8


def test_a_lost_claim_makes_no_batch(batches: Batches, store: JobStore) -> None:
    with pytest.raises(RequestInFlight):
        batches.create("ada", pictures(1), claim=Claim("x" * 64, "lost"))
    assert store.blobs.settled_ids(timedelta(0), UPLOAD) == []
    assert batches.take() is None


def test_a_repeated_request_finds_its_batch_until_that_is_erased(batches: Batches, store: JobStore) -> None:
    kept = store.idempotency
    claim = kept.claim(key_id("ada", "k"), fingerprint("k", [b"a"]))
    assert isinstance(claim, Claim)
    batch = batches.create("ada", pictures(1), claim=claim)
    assert kept.claim(key_id("ada", "k"), fingerprint("k", [b"a"])) == batch.id
    batches.erase(batch.id, "ada")
    assert kept.claim(key_id("ada", "k"), fingerprint("k", [b"b"])) == batch.id


def test_cancelling_ends_what_is_open_and_keeps_what_is_done(
    batches: Batches, store: JobStore, png: bytes
) -> None:
    batch = batches.create("ada", pictures(4))
    make(store, batches, png, taken(batches))
    (claimed,) = store.leases.claim("worker", 1, HELD)
    store.leases.finish(claimed.token, {"works": []}, {})
    waiting = make(store, batches, png, taken(batches))
    held = taken(batches)
    told = batches.cancel(batch.id, "ada")
    assert told.counts == {"succeeded": 1, "cancelled": 3}
    assert told.state == "cancelled"
    with pytest.raises(ItemLost):
        make(store, batches, png, held)
    standing = store.standing(waiting.id)
    assert standing is not None
    assert standing.state == "cancelled"
    assert store.blobs.settled_ids(timedelta(0), UPLOAD) == []
    assert batches.cancel(batch.id, "ada", Actor("ada's key")).counts == told.counts
    with pytest.raises(BatchNotFound):
        batches.cancel(batch.id, "eve")
    noted = store.audit.list(AuditFilters(action="batch")).events
    assert [(event.actor, event.action, event.object) for event in noted] == [
        (SERVICE.name, "batch.cancelled", batch.id)
    ]


def test_erasing_a_batch_erases_its_jobs_and_all_that_was_sent(
    batches: Batches, store: JobStore, png: bytes, settings: Settings
) -> None:
    items = [
        NewItem({**ASKED, "prompt": f"geheim {n}", "client_tag": "geheim"}, f"geheim {n}", b"geheim %d" % n)
        for n in range(3)
    ]  # fmt: skip
    items.append(NewItem(ASKED, "geheim name 4", address="https://geheim.example/a.png"))
    batch = batches.create("ada", items, "geheim tag")
    job = make(store, batches, png, taken(batches))
    batches.fail(taken(batches), {"code": "svg", "detail": "geheim reason"})
    with pytest.raises(BatchNotFound):
        batches.erase(batch.id, "eve")
    batches.erase(batch.id, "ada")
    batches.erase(batch.id, "ada")
    told = batches.get(batch.id)
    assert told is not None
    assert (told.state, told.counts, told.client_tag) == ("erased", {"erased": 4}, None)
    standing = store.standing(job.id)
    assert standing is not None
    assert standing.state == "erased"
    if settings.database_url is None:
        assert store.database.forget()
        for path in settings.data_dir.rglob("*"):
            assert path.is_dir() or b"geheim" not in path.read_bytes(), path


def test_erasing_one_job_empties_its_item(batches: Batches, store: JobStore, png: bytes) -> None:
    batch = batches.create("ada", pictures(2))
    job = make(store, batches, png, taken(batches))
    store.erase(job.id)
    first, second = batches.items(batch.id, 0, 10)
    assert (first.state, first.name, first.client_tag) == ("erased", None, None)
    assert (second.state, second.name) == ("waiting", "p2")


def test_mending_completes_a_broken_off_erasure_and_removes_orphans(
    batches: Batches, store: JobStore, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batches.create("ada", pictures(2))
    job = make(store, batches, png, taken(batches))
    monkeypatch.setattr(store, "erase_all", lambda ids, by: None)
    batches.erase(batch.id, "ada")
    monkeypatch.undo()
    standing = store.standing(job.id)
    assert standing is not None
    assert standing.state == "queued"
    store.blobs.put("bat_" + "0" * 32 + "-0001", b"an orphan", UPLOAD)
    waiting = batches.create("ada", pictures(1))
    monkeypatch.setattr("jobs.batches.ORPHAN_AFTER", timedelta(0))
    batches.mend()
    standing = store.standing(job.id)
    assert standing is not None
    assert standing.state == "erased"
    assert store.blobs.settled_ids(timedelta(0), UPLOAD) == [f"{waiting.id}-0001"]


def test_the_list_has_the_owners_own_newest_first(batches: Batches) -> None:
    made = [batches.create("ada", pictures(number), f"tag {number}") for number in (1, 2, 3)]
    batches.create("eve", pictures(1))
    page = batches.page(BatchFilters("ada"), limit=2)
    assert [batch.id for batch in page.batches] == [made[2].id, made[1].id]
    rest = batches.page(BatchFilters("ada"), page.next_cursor, 2)
    assert ([batch.id for batch in rest.batches], rest.next_cursor) == ([made[0].id], None)
    assert [batch.size for batch in batches.page(BatchFilters("ada", client_tag="tag 2")).batches] == [2]
    assert batches.page(BatchFilters("ada", created_after=made[2].created_at)).batches == []
    batches.erase(made[0].id)
    assert len(batches.page(BatchFilters("ada")).batches) == 2


def test_half_of_the_queue_is_left_to_questions(
    batches: Batches, store: JobStore, png: bytes, ask: Ask
) -> None:
    store.settings = store.settings.model_copy(update={"queue_limit": 4})
    batches.create("ada", pictures(3))
    for _ in range(2):
        make(store, batches, png, taken(batches))
    with pytest.raises(QueueFull):
        store.check_room("ada", bulk=True)
    with pytest.raises(QueueFull):
        make(store, batches, png, taken(batches))
    for _ in range(2):
        ask()
    with pytest.raises(QueueFull):
        ask()


def test_a_question_goes_before_fifty_of_anothers_batch_and_shares_no_pass_with_them(
    batches: Batches, store: JobStore, png: bytes, ask: Ask
) -> None:
    """It waits for the pass that is being computed, of `bulk_size` pictures at most, and for no other."""
    batches.create("bulk", pictures(50))
    for _ in range(50):
        make(store, batches, png, taken(batches))
    assert len(store.leases.claim("worker", 8, HELD)) == 2
    person = ask(owner="ada")
    assert [job.id for job in store.leases.claim("worker", 8, HELD)] == [person.id]
    assert len(store.leases.claim("worker", 8, HELD)) == 2
    assert len(store.leases.claim("worker", 1, HELD)) == 1
