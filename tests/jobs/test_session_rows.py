"""Sessions in the database: begun, bounded, ended by one, by a key, by revoking it, and by their time."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from jobs.audit import Actor, AuditFilters
from jobs.credentials import Scope
from jobs.keys import ApiKey, Keys, NewKey
from jobs.models import utc_now
from jobs.sessions import MOST_OF_A_KEY, SignedIn, digest_of
from jobs.store import JobStore

SOON = timedelta(hours=1)


@pytest.fixture
def keys(store: JobStore) -> Keys:
    return Keys(store.database)


def made(keys: Keys) -> ApiKey:
    return keys.create(NewKey(name="a key", scopes=frozenset({Scope.READ}))).key


def begin(store: JobStore, key: ApiKey, session_id: str, lasts: timedelta = SOON, **more: str) -> str:
    store.sessions.begin(session_id, key.id, utc_now() + lasts, Actor(key.prefix), **more)
    return digest_of(session_id)


def rows(store: JobStore) -> int:
    with store.database.read() as session:
        return session.scalar(select(func.count()).select_from(SignedIn)) or 0


def test_one_ends_alone_and_a_key_ends_all_of_its(store: JobStore, keys: Keys) -> None:
    ada, eve = made(keys), made(keys)
    first, second = begin(store, ada, "first"), begin(store, ada, "second")
    others = begin(store, eve, "others")
    assert [store.sessions.there(one) for one in (first, second, others)] == [True, True, True]
    assert [one.digest for one in store.sessions.of(ada.id)] == [second, first]
    store.sessions.end(first, ada.prefix, Actor(ada.prefix))
    store.sessions.end(first, ada.prefix, Actor(ada.prefix))
    assert [store.sessions.there(one) for one in (first, second, others)] == [False, True, True]
    third = begin(store, ada, "third", instead_of=second)
    assert [store.sessions.there(one) for one in (second, third)] == [False, True]
    assert store.sessions.end_all(ada.id, ada.prefix, Actor("an operator")) == 1
    assert store.sessions.end_all(ada.id, ada.prefix, Actor("an operator")) == 0
    assert [store.sessions.there(one) for one in (third, others)] == [False, True]
    told = store.audit.list(AuditFilters(object=ada.prefix), limit=100).events
    assert [(one.action, one.actor) for one in reversed(told)] == [
        ("key.created", "operator's shell"),
        *2 * [("sign-in", ada.prefix)],
        ("sign-out", ada.prefix),
        ("sign-in", ada.prefix),
        ("sign-out", "an operator"),
    ]


def test_revoking_a_key_leaves_no_session_of_it(store: JobStore, keys: Keys) -> None:
    ada, eve = made(keys), made(keys)
    begin(store, ada, "adas"), begin(store, eve, "eves")
    keys.revoke(ada.id)
    assert (store.sessions.of(ada.id), len(store.sessions.of(eve.id)), rows(store)) == ([], 1, 1)
    assert store.sessions.count() == 1


def test_a_key_has_so_many_and_the_oldest_goes(store: JobStore, keys: Keys) -> None:
    ada, eve = made(keys), made(keys)
    begin(store, eve, "eves")
    digests = [begin(store, ada, str(number)) for number in range(MOST_OF_A_KEY + 3)]
    assert [one.digest for one in store.sessions.of(ada.id)] == digests[:2:-1]
    assert rows(store) == MOST_OF_A_KEY + 1


def test_what_has_ended_is_dropped(store: JobStore, keys: Keys) -> None:
    ada = made(keys)
    over, on = begin(store, ada, "over", -SOON), begin(store, ada, "on")
    assert [store.sessions.there(one) for one in (over, on)] == [False, True]
    assert [one.digest for one in store.sessions.of(ada.id)] == [on]
    assert (store.sessions.drop_ended(), store.sessions.drop_ended(), rows(store)) == (1, 0, 1)


def test_nothing_that_signs_in_is_kept(store: JobStore, keys: Keys) -> None:
    begin(store, made(keys), "what stands in the cookie")
    with store.database.read() as session:
        (row,) = session.scalars(select(SignedIn)).all()
    assert "what stands" not in str(vars(row))
