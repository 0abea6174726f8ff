"""Shares in the database: who makes and ends them, what opens one, and what is kept of a token."""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import text, update

from jobs import shares as module
from jobs.audit import Actor, AuditFilters
from jobs.credentials import Scope
from jobs.errors import JobNotFound
from jobs.keys import Keys, NewKey
from jobs.models import LOCAL_OWNER, Job, utc_now
from jobs.shares import LONGEST, MOST_OPEN, Issued, NewShare, Share, ShareNotFound, ShareRefused, digest_of
from jobs.store import JobStore

HELD = ("photographs@3f9c2a",)
ADA = Actor("das_ada", "req_1")
Answered = Callable[..., Job]


@pytest.fixture
def answered(store: JobStore, ask: Callable[..., Job]) -> Answered:
    """A question with an answer."""

    def answered(**changes: object) -> Job:
        job = ask(**changes)
        (claimed,) = store.leases.claim("worker", 1, HELD)
        store.leases.finish(claimed.token, {"works": [], "summary": "."}, {})
        return job

    return answered


def share(store: JobStore, job: Job, **changes: object) -> Issued:
    wanted = {"job_id": job.id, "owner": job.owner, **changes}
    return store.shares.create(NewShare(**wanted), ADA)  # type: ignore[arg-type]


def opens(store: JobStore, token: str, local: bool = True) -> str | None:
    found = store.shares.opened(token, local=local)
    return None if found is None else found[1].id


def set_end(store: JobStore, issued: Issued, seconds: float) -> None:
    with store.database.write() as session:
        ends = utc_now() + timedelta(seconds=seconds)
        session.execute(update(Share).where(Share.id == issued.share.id).values(expires_at=ends))


def test_a_token_opens_one_answer_and_only_its_digest_is_kept(store: JobStore, answered: Answered) -> None:
    first, second = answered(), answered()
    one, other = share(store, first, left_out=("picture",), works=3, label="a lawyer"), share(store, second)
    assert (opens(store, one.token), opens(store, other.token)) == (first.id, second.id)
    assert one.token not in repr(one)
    assert len(one.token) == len("dass_") + 43
    with store.database.read() as session:
        rows = [str(tuple(row)) for row in session.execute(text("SELECT * FROM shares"))]
    assert one.share.digest in "".join(rows)
    assert one.token[5:] not in "".join(rows)
    (listed,) = store.shares.of(first.id, LOCAL_OWNER)
    assert (listed.left_out, listed.works, listed.label, listed.state(utc_now())) == (
        ["picture"], 3, "a lawyer", "open",
    )  # fmt: skip
    assert listed.expires_at - listed.created_at == timedelta(days=30)


@pytest.mark.parametrize("why", ["withdrawn", "over", "erased", "nobody's", "cut", "longer", "never"])
def test_whatever_opens_nothing_is_one_case(store: JobStore, answered: Answered, why: str) -> None:
    keys = Keys(store.database)
    key = keys.create(NewKey(name="a key", scopes=frozenset({Scope.ASK}))).key
    job = answered(owner=key.owner)
    issued = share(store, job)
    token = issued.token
    assert opens(store, token, local=False) == job.id
    match why:
        case "withdrawn":
            store.shares.revoke(job.id, issued.share.id, job.owner, ADA)
        case "over":
            set_end(store, issued, -0.001)
        case "erased":
            store.erase(job.id)
        case "nobody's":
            keys.revoke(key.id)
        case "cut":
            token = token[:-1]
        case "longer":
            token += "x"
        case "never":
            token = "\x00\ud800é" + 5000 * "x"
    assert store.shares.opened(token, local=False) is None


def test_a_key_that_replaces_another_keeps_its_links_open(store: JobStore, answered: Answered) -> None:
    keys = Keys(store.database)
    old = keys.create(NewKey(name="a key", scopes=frozenset({Scope.ASK}))).key
    job = answered(owner=old.owner)
    issued = share(store, job)
    new = keys.rotate(old.id, timedelta()).key
    keys.revoke(old.id)
    assert opens(store, issued.token, local=False) == job.id
    keys.revoke(new.id)
    assert opens(store, issued.token, local=False) is None


def test_what_was_asked_without_a_key_is_nobodys_where_keys_are_needed(
    store: JobStore, answered: Answered
) -> None:
    job = answered()
    issued = share(store, job)
    assert opens(store, issued.token) == job.id
    assert opens(store, issued.token, local=False) is None


def test_only_an_answer_of_ones_own_is_shared(
    store: JobStore, answered: Answered, ask: Callable[..., Job]
) -> None:
    job = answered()
    with pytest.raises(JobNotFound):
        share(store, job, owner="another")
    with pytest.raises(JobNotFound):
        share(store, job, job_id="att_" + 32 * "0")
    with pytest.raises(ShareRefused, match="the question is queued"):
        share(store, ask())
    for wrong in (timedelta(), timedelta(seconds=-1), LONGEST + timedelta(minutes=1)):
        with pytest.raises(ShareRefused, match="365 days at most"):
            share(store, job, expires_at=utc_now() + wrong)
    store.erase(job.id)
    with pytest.raises(JobNotFound):
        share(store, job)
    assert store.shares.of(job.id, LOCAL_OWNER) == []


def test_a_link_ends_with_the_answer(store: JobStore, answered: Answered) -> None:
    key = Keys(store.database).create(
        NewKey(name="a", scopes=frozenset({Scope.ASK}), keep_results=timedelta(days=2))
    )
    job = answered(owner=key.key.owner)
    ended = store.get(job.id)
    assert ended is not None
    assert ended.finished_at is not None
    for wanted in (None, utc_now() + timedelta(days=9)):
        assert share(store, job, expires_at=wanted).share.expires_at == ended.finished_at + timedelta(days=2)
    soon = utc_now() + timedelta(hours=1)
    assert share(store, job, expires_at=soon).share.expires_at == soon


def test_nobody_ends_anothers(store: JobStore, answered: Answered) -> None:
    first, second = answered(), answered()
    issued = share(store, first)
    for job_id, share_id, owner in (
        (first.id, issued.share.id, "another"),
        (second.id, issued.share.id, LOCAL_OWNER),
        (first.id, "shr_" + 32 * "0", LOCAL_OWNER),
        (first.id, "\x00", LOCAL_OWNER),
    ):
        with pytest.raises(ShareNotFound):
            store.shares.revoke(job_id, share_id, owner, ADA)
    assert opens(store, issued.token) == first.id
    assert store.shares.of(first.id, "another") == []


def test_it_is_recorded_without_its_secret(store: JobStore, answered: Answered) -> None:
    job = answered()
    issued = share(store, job, left_out=("settings",), label="a lawyer")
    for _ in range(2):
        store.shares.revoke(job.id, issued.share.id, job.owner, ADA)
    revoked, created = store.audit.list(AuditFilters(action="share")).events
    assert (created.action, revoked.action) == ("share.created", "share.revoked")
    for event in (created, revoked):
        assert (event.actor, event.request_id, event.object) == ("das_ada", "req_1", issued.share.id)
        assert event.details["question"] == job.id
        told = str(event.details)
        assert not any(secret in told for secret in (issued.token[5:], issued.share.digest, "lawyer"))
    assert created.details["left_out"] == ["settings"]


def test_views_are_counted_also_at_once(store: JobStore, answered: Answered) -> None:
    job = answered()
    issued = share(store, job)
    assert (issued.share.views, issued.share.viewed_at) == (0, None)
    threads = [threading.Thread(target=store.shares.count_view, args=(issued.share.id,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (listed,) = store.shares.of(job.id, LOCAL_OWNER)
    assert listed.views == 8
    assert listed.viewed_at is not None
    assert timedelta() <= utc_now() - listed.viewed_at < timedelta(minutes=1)


def test_so_many_are_open_at_once_and_so_many_are_kept(
    store: JobStore, answered: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = answered()
    monkeypatch.setattr(module, "MOST_OPEN", 2)
    monkeypatch.setattr(module, "MOST_KEPT", 4)
    made = [share(store, job), share(store, job)]
    with pytest.raises(ShareRefused, match="2 links to this answer are open"):
        share(store, job)
    for _ in range(6):
        oldest = made.pop(0)
        store.shares.revoke(job.id, oldest.share.id, job.owner, ADA)
        made.append(share(store, job))
    kept = store.shares.of(job.id, LOCAL_OWNER)
    assert len(kept) == 4
    assert [one.id for one in kept if one.state(utc_now()) == "open"] == [
        one.share.id for one in reversed(made)
    ]
    assert MOST_OPEN == 50


def test_any_text_has_a_digest() -> None:
    assert len({digest_of(text) for text in ("", "\x00", "\ud800", "é", 10_000 * "x")}) == 5
