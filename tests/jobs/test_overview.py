"""What the operator's page reads of questions: bounded, by pages, along indexes, and nothing of what was asked."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import event, text

from jobs.audit import Actor
from jobs.batches import Batches
from jobs.credentials import Scope
from jobs.errors import BadCursor
from jobs.keys import Keys, NewKey
from jobs.models import Job, utc_now
from jobs.overview import Overview
from jobs.retention import Due, Retention
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.webhooks.models import WebhookDelivery

Ask = Callable[..., Job]
HELD = ("photographs@3f9c2a",)


@pytest.fixture
def looks(store: JobStore) -> Overview:
    return Overview(store.database)


def test_the_queue_is_told_by_owner_and_index(store: JobStore, looks: Overview, ask: Ask) -> None:
    assert (looks.queue().waiting, looks.queue().oldest, looks.queue().owners) == (0, None, [])
    first = ask(owner="ada", prompt="a very particular prompt", client_tag="a particular tag")
    ask(owner="ada"), ask(owner="eve")
    (claimed,) = store.leases.claim("a-worker", 1, HELD)
    queue = looks.queue()
    assert (queue.waiting, queue.running) == (2, 1)
    assert queue.oldest is not None
    assert 0 <= queue.oldest_s < 60
    assert [(one.owner, one.waiting + one.running) for one in queue.owners] == [("ada", 2), ("eve", 1)]
    assert queue.indexes == [("photographs@3f9c2a", 2)]
    assert (looks.open_of("ada").waiting, looks.open_of("ada").running) == (1, 1)
    (running,) = looks.running()
    assert (running.id, running.leased_by) == (claimed.id, "a-worker")
    assert "particular" not in str(looks.jobs())
    assert first.id in {one.id for one in looks.jobs().jobs}


def test_what_ended_is_counted_with_its_reasons(store: JobStore, looks: Overview, ask: Ask) -> None:
    for code in ("time-limit", "time-limit", "not-attributable"):
        ask()
        (claimed,) = store.leases.claim("a-worker", 1, HELD)
        store.leases.fail(claimed.token, "It took too long.", code)
    store.cancel(ask().id, by=Actor("ada"))
    ended = looks.ended_since(utc_now() - timedelta(hours=1))
    assert (ended.succeeded, ended.failed, ended.cancelled) == (0, 3, 1)
    assert ended.reasons == [("time-limit", 2), ("not-attributable", 1)]
    assert looks.ended_since(utc_now() + timedelta(hours=1)).failed == 0
    assert [one.error["code"] for one in looks.jobs(["failed"]).jobs if one.error] == [
        "not-attributable",
        "time-limit",
        "time-limit",
    ]
    (cancelled,) = store.audit.list(limit=1).events
    assert (cancelled.action, cancelled.actor) == ("question.cancelled", "ada")


def test_pages_go_on_where_the_last_ended(looks: Overview, ask: Ask) -> None:
    ids = [ask(owner="ada").id for _ in range(5)]
    ask(owner="eve")
    seen: list[str] = []
    cursor = None
    while True:
        page = looks.jobs(("queued", "running"), "ada", cursor, limit=2)
        seen += [one.id for one in page.jobs]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == ids[::-1]
    with pytest.raises(BadCursor):
        looks.jobs(cursor="att_x")


def test_keys_are_found_by_name_and_state(store: JobStore) -> None:
    keys = Keys(store.database)
    made = [
        keys.create(NewKey(name=f"key {number} 100%_", scopes=frozenset({Scope.READ}))).key
        for number in range(5)
    ]
    keys.revoke(made[1].id)
    first = keys.list(limit=2)
    rest = keys.list(cursor=first.next_cursor, limit=10)
    assert [key.id for key in (*first.keys, *rest.keys)] == [key.id for key in keys.each()]
    assert rest.next_cursor is None
    assert [key.id for key in keys.list("KEY 3").keys] == [made[3].id]
    assert [key.id for key in keys.list(made[2].prefix).keys] == [made[2].id]
    assert len(keys.list("%_").keys) == 5
    assert keys.list("%%").keys == []
    assert [key.id for key in keys.list(state="revoked").keys] == [made[1].id]
    assert (keys.count("active"), keys.count("expired"), keys.count("revoked")) == (4, 0, 1)
    assert {owner: key.id for owner, key in keys.of_owners([made[0].owner, "nobody"]).items()} == {
        made[0].owner: made[0].id
    }
    for cursor in ("x", "bcdfghjkmnpq", "\x00"):
        with pytest.raises(BadCursor):
            keys.list(cursor=cursor)


def test_what_retention_takes_next_is_counted(store: JobStore, ask: Ask) -> None:
    keyed = Keys(store.database).create(NewKey(name="a key", scopes=frozenset({Scope.ASK}))).key.owner
    for owner in (keyed, keyed, "local"):
        store.cancel(ask(owner=owner).id)
    ask(owner=keyed)
    retention, now = Retention(store, Batches(store)), utc_now()
    assert retention.due(now) == Due(0, 0)
    assert retention.due(now + timedelta(days=2)) == Due(2, 0)
    assert retention.due(now + timedelta(days=91)) == Due(2, 2)
    assert len(retention.round(now + timedelta(days=2)).uploads) == 2
    assert retention.due(now + timedelta(days=2)) == Due(0, 0)


def test_sizes(settings: Settings, store: JobStore, ask: Ask) -> None:
    job = ask(image=b"x" * 1000)
    assert store.blobs.size(100) == (1, 1000, True)
    assert store.blobs.size(0) == (0, 0, False)
    assert store.database.size() > 10_000
    store.erase(job.id)
    assert store.blobs.size(100) == (0, 0, True)


def test_everybodys_webhooks(store: JobStore) -> None:
    made = [
        store.webhook_endpoints.create(owner, "https://hooks.example.org/x", None, None).endpoint
        for owner in ("ada", "eve", "joe")
    ]
    page = store.webhook_endpoints.everybodys(limit=2)
    rest = store.webhook_endpoints.everybodys(cursor=page.next_cursor)
    assert [one.id for one in (*page.endpoints, *rest.endpoints)] == [one.id for one in made[::-1]]
    assert (store.webhook_endpoints.disabled(), store.webhook_endpoints.everybodys(False).endpoints) == (
        0,
        [],
    )
    with pytest.raises(BadCursor):
        store.webhook_endpoints.everybodys(cursor="whe_x")
    assert store.webhook_endpoints.anybodys(made[1].id) is not None
    assert store.webhook_endpoints.anybodys("\x00") is None
    sent = [store.webhook_endpoints.test(one.owner, one.id) for one in made]
    with store.database.write() as session:
        failed = session.get_one(WebhookDelivery, sent[0].id)
        failed.state, failed.settled_at = "failed", utc_now()
    assert [one.id for one in store.webhook_deliveries.list(None, "failed").deliveries] == [sent[0].id]
    assert store.webhook_deliveries.failed_since(utc_now() - timedelta(hours=1)) == 1
    store.webhook_deliveries.again(made[0], sent[0].id, Actor("an operator"))
    (again,) = store.audit.list(limit=1).events
    assert (again.action, again.object, again.actor) == ("webhook.redelivered", sent[0].id, "an operator")


@pytest.mark.sqlite
def test_no_list_goes_through_a_whole_table(store: JobStore, looks: Overview) -> None:
    """As SQLite plans it: along an index, with a page's limit."""
    statements: list[tuple[str, object]] = []

    @event.listens_for(store.database.engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, given: object, *_: object) -> None:
        if statement.startswith("SELECT"):
            statements.append((statement, given))

    keys = Keys(store.database)
    looks.queue(), looks.ended_since(utc_now()), looks.running(), looks.open_of("ada")
    looks.jobs(["failed"]), looks.jobs(), looks.jobs(("queued", "running")), looks.jobs(None, "ada")
    keys.list(), keys.of_owners(["ada"]), store.sessions.of("x"), store.sessions.there("x")
    store.webhook_endpoints.everybodys(), store.webhook_endpoints.everybodys(False)
    store.webhook_deliveries.list(None, "failed"), store.webhook_deliveries.failed_since(utc_now())
    store.opt_outs.waiting(), store.opt_outs.list(state="received"), store.sessions.count()
    event.remove(store.database.engine, "before_cursor_execute", note)
    assert len(statements) > 15
    with store.database.engine.connect() as connection:
        for statement, given in statements:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given).all()  # type: ignore[arg-type]
            for step in plan:
                # What goes by the primary key from the newest on is a scan with a limit to it.
                whole = step.detail.startswith("SCAN") and "USING INDEX" not in step.detail
                assert not whole or "LIMIT" in statement, (statement, step.detail)
    with store.database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM sessions")) == 0
