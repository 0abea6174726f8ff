"""The audit log in the database: what is recorded with what it is about, found again, and dropped in time."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from jobs.audit import SHELL, Actor, AuditFilters
from jobs.batch_rows import NewItem
from jobs.batches import Batches
from jobs.credentials import Scope
from jobs.errors import BadCursor, KeyRefused
from jobs.keys import Keys, NewKey
from jobs.models import Job, utc_now
from jobs.store import JobStore
from jobs.webhooks.endpoints import Change

ADA = Actor("das_ada", "req_1")


def told(store: JobStore, **filters: str) -> list[tuple[str, str, str | None]]:
    """What was done, by whom and to what, oldest first."""
    events = store.audit.list(AuditFilters(**filters), limit=100).events
    return [(one.action, one.actor, one.object) for one in reversed(events)]


def test_it_is_filtered_and_paged(store: JobStore) -> None:
    for number in range(5):
        store.audit.write(
            Actor(f"das_{number % 2}", "req_1"), f"key.{'made' if number else 'x'}", f"o{number}"
        )
    store.audit.write(SHELL, "keyed", None, "refused", why="a word")
    page = store.audit.list(limit=4)
    assert [one.object for one in page.events] == [None, "o4", "o3", "o2"]
    rest = store.audit.list(cursor=page.next_cursor)
    assert [one.object for one in rest.events] == ["o1", "o0"]
    assert rest.next_cursor is None
    assert [one.object for one in store.audit.each(AuditFilters(action="key", actor="das_0"))] == [
        "o4",
        "o2",
        "o0",
    ]
    assert [one.details for one in store.audit.each(AuditFilters(action="keyed"))] == [{"why": "a word"}]
    assert list(store.audit.each(AuditFilters(after=utc_now()))) == []
    assert len(list(store.audit.each(AuditFilters(object="o3", before=utc_now())))) == 1
    with pytest.raises(BadCursor):
        store.audit.list(cursor="aud_")


def test_what_is_old_is_dropped_so_much_at_once(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.audit.DROPPED_AT_ONCE", 4)
    for number in range(6):
        store.audit.write(SHELL, "key.made", f"o{number}")
    kept = timedelta(days=400)
    assert store.audit.drop_old(kept, utc_now() + timedelta(days=399)) == 0
    later = utc_now() + timedelta(days=401)
    assert [store.audit.drop_old(kept, later) for _ in range(3)] == [4, 2, 0]
    assert told(store) == []


def test_keys_are_recorded_and_never_their_secrets(store: JobStore) -> None:
    keys = Keys(store.database)
    made = keys.create(NewKey(name="a name", scopes=frozenset({Scope.ASK})), ADA)
    replaced = keys.rotate(made.key.id, by=ADA)
    with pytest.raises(KeyRefused):
        keys.rotate(made.key.id, by=ADA)
    keys.revoke(made.key.id)
    keys.revoke(made.key.id)
    assert told(store) == [
        ("key.created", "das_ada", made.key.prefix),
        ("key.rotated", "das_ada", made.key.prefix),
        ("key.revoked", "operator's shell", made.key.prefix),
    ], "what was refused or changed nothing isn't there"
    first, second, _ = reversed(store.audit.list().events)
    assert (first.request_id, first.details) == ("req_1", {"scopes": ["ask"]})
    assert second.details == {"to": replaced.key.prefix}
    for issued in (made, replaced):
        assert issued.secret not in str([one.details for one in store.audit.list().events])


def test_erasing_is_recorded_once(store: JobStore, ask: Callable[..., Job]) -> None:
    batches = Batches(store)
    batch = batches.create("ada", [NewItem({}, "a.png", b"a picture")])
    claim = batches.take()
    assert claim is not None
    job, own = ask(owner="ada"), ask()
    for _ in range(2):
        store.erase(job.id, "ada", ADA)
        batches.erase(batch.id, "ada", ADA)
        store.erase(own.id)
    assert told(store) == [
        ("question.erased", "das_ada", job.id),
        ("batch.erased", "das_ada", batch.id),
        ("question.erased", "service", own.id),
    ]


def test_policies_and_webhooks_are_recorded_without_what_they_say(store: JobStore) -> None:
    store.policies.put("ada", "publish", {"says": "a rule"}, 64 * "0", dry_run=True, by=ADA)
    store.policies.activate("ada", "publish", 1, by=ADA)
    store.policies.activate("ada", "publish", None, dry_run=True, by=ADA)
    endpoints = store.webhook_endpoints
    made = endpoints.create("ada", "https://example.org/a-secret-path", None, "a word", ADA)
    endpoints.change("ada", made.endpoint.id, Change(enabled=False), ADA)
    endpoints.rotate("ada", made.endpoint.id, by=ADA)
    endpoints.delete("ada", made.endpoint.id, ADA)
    hook = made.endpoint.id
    assert told(store) == [
        ("policy.stored", "das_ada", "publish"),
        ("policy.activated", "das_ada", "publish"),
        ("policy.activated", "das_ada", "publish"),
        ("webhook.created", "das_ada", hook),
        ("webhook.changed", "das_ada", hook),
        ("webhook.rotated", "das_ada", hook),
        ("webhook.deleted", "das_ada", hook),
    ]
    details = [one.details for one in reversed(store.audit.list().events)]
    assert details[:3] == [
        {"version": 1, "dry_run": True},
        {"version": 1, "dry_run": False},
        {"version": None, "dry_run": True},
    ]
    for secret in ("a rule", "a-secret-path", "a word", made.secret):
        assert secret not in str(details)
