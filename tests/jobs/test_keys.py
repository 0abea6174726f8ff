"""API keys: made once, found again by their id, ended, exchanged; and never kept themselves."""

import hashlib
import logging
import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import event

from jobs.credentials import Kind, Scope, Token
from jobs.database import Database, upgrade
from jobs.errors import KeyNotFound, KeyRefused
from jobs.keys import IssuedKey, Keys, NewKey
from jobs.masking import masked
from jobs.models import utc_now
from jobs.settings import Settings

ASK = frozenset({Scope.ASK})


@pytest.fixture
def keys(settings: Settings) -> Iterator[Keys]:
    upgrade(settings)
    database = Database(settings)
    yield Keys(database)
    database.close()


@pytest.fixture
def issued(keys: Keys) -> IssuedKey:
    return keys.create(NewKey(name="a pipeline", scopes=frozenset({Scope.READ, Scope.ASK})))


def test_a_key_is_kept_as_its_digest_only(keys: Keys, issued: IssuedKey, settings: Settings) -> None:
    secret = issued.secret
    assert re.fullmatch(r"das_[2-9b-z]{12}_[A-Za-z0-9_-]{43}", secret)
    found = keys.find(issued.key.id)
    assert found is not None
    assert found.digest == hashlib.sha256(secret.encode()).hexdigest()
    assert (found.name, found.scopes, found.indexes) == ("a pipeline", ["ask", "read"], None)
    assert found.owner == f"key_{found.id}"
    assert secret.startswith(found.prefix + "_")
    with keys._database.read() as session:
        rows = session.connection().exec_driver_sql("SELECT * FROM api_keys").all()
    assert secret[17:] not in repr(rows)
    assert secret not in repr(issued)


def test_its_own_token_matches_and_no_other(issued: IssuedKey) -> None:
    key = issued.key
    own = Token.read(issued.secret)
    assert own is not None
    assert own.id == key.id
    assert own.matches(key.kind, key.digest)
    last = issued.secret[-1]
    other = Token.read(issued.secret[:-1] + ("A" if last != "A" else "B"))
    assert other is not None
    assert not other.matches(key.kind, key.digest)
    as_link = Token.read("dasl" + issued.secret[3:])
    assert as_link is not None
    assert not as_link.matches(key.kind, key.digest)
    # The kind counts by itself as well, not only as a part of what was hashed.
    assert not own.matches(Kind.LINK, key.digest)
    assert issued.secret not in repr(own)


@pytest.mark.parametrize(
    "text",
    ["", "das_", "das_abc", "DAS_bcdfghjkmnpq_" + 43 * "a", "das_bcdfghjkmnpq_" + 42 * "a",
     "das_bcdfghjkmnpq_" + 44 * "a",
     "das_bcdfghjkmnpq_" + 43 * "ä", " das_bcdfghjkmnpq_" + 43 * "a", "das_bcdfghjkmnpq_" + 43 * "a" + "\n"],
)  # fmt: skip
def test_what_isnt_a_token(text: str) -> None:
    assert Token.read(text) is None


def test_a_key_is_found_by_one_statement(keys: Keys, issued: IssuedKey) -> None:
    said: list[str] = []
    event.listen(keys._database.engine, "before_cursor_execute", lambda *args: said.append(args[2]))
    assert keys.find(issued.key.id) is not None
    statements = [statement for statement in said if statement != "BEGIN"]
    assert len(statements) == 1
    assert "WHERE api_keys.id =" in statements[0]


def test_it_ends_when_it_is_revoked_and_when_it_expires(keys: Keys) -> None:
    assert not keys.any_active()
    short = keys.create(NewKey(name="short", scopes=ASK, expires_in=timedelta(hours=1))).key
    now = utc_now()
    assert keys.any_active()
    assert short.state(now) == "active"
    assert short.state(now + timedelta(hours=2)) == "expired"
    first = keys.revoke(short.id)
    assert first.state(now) == "revoked"
    assert not keys.any_active()
    assert keys.revoke(short.id).revoked_at == first.revoked_at
    for unknown in ("bcdfghjkmnpq", "", "\x00", "das_bcdfghjkmnpq", 5000 * "a"):
        with pytest.raises(KeyNotFound):
            keys.revoke(unknown)


def test_both_work_for_as_long_as_they_overlap(keys: Keys) -> None:
    wanted = NewKey(
        name="with all",
        scopes=ASK,
        indexes=("photographs", "b@1"),
        daily_quota=5,
        expires_in=timedelta(days=90),
    )
    old = keys.create(wanted)
    new = keys.rotate(old.key.id, timedelta(days=2))
    assert new.secret != old.secret
    for name in ("name", "kind", "scopes", "indexes", "daily_quota", "owner"):
        assert getattr(new.key, name) == getattr(old.key, name)
    assert new.key.replaces == old.key.id
    now = utc_now()
    ends = keys.find(old.key.id)
    assert ends is not None
    assert ends.state(now + timedelta(days=1)) == "active"
    assert ends.state(now + timedelta(days=2, seconds=1)) == "expired"
    assert new.key.state(now + timedelta(days=89)) == "active"
    assert new.key.state(now + timedelta(days=91)) == "expired"
    with pytest.raises(KeyRefused, match=f"replaced by {new.key.prefix} already"):
        keys.rotate(old.key.id)


def test_an_overlap_doesnt_lengthen_a_life_and_may_be_none(keys: Keys) -> None:
    old = keys.create(NewKey(name="a day", scopes=ASK, expires_in=timedelta(days=1))).key
    keys.rotate(old.id, timedelta(days=30))
    ends = keys.find(old.id)
    assert ends is not None
    assert ends.expires_at == old.expires_at
    at_once = keys.create(NewKey(name="at once", scopes=ASK)).key
    keys.rotate(at_once.id, timedelta())
    with pytest.raises(KeyRefused, match="is expired: make a new key"):
        keys.rotate(at_once.id)
    gone = keys.create(NewKey(name="gone", scopes=ASK)).key
    keys.revoke(gone.id)
    with pytest.raises(KeyRefused, match="is revoked"):
        keys.rotate(gone.id)
    with pytest.raises(KeyNotFound):
        keys.rotate("bcdfghjkmnpq")


def test_its_use_is_told_by_the_hour(keys: Keys, issued: IssuedKey) -> None:
    assert issued.key.last_used_at is None
    keys.used(issued.key.id)
    found = keys.find(issued.key.id)
    assert found is not None
    assert found.last_used_at is not None
    assert (found.last_used_at.minute, found.last_used_at.second) == (0, 0)
    assert timedelta() <= utc_now() - found.last_used_at < timedelta(hours=2)


def test_the_newest_comes_first(keys: Keys) -> None:
    made = [keys.create(NewKey(name=f"no. {number}", scopes=ASK)).key.id for number in range(3)]
    assert [key.id for key in keys.each()] == made[::-1]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "  "}, "1 to 200 characters"),
        ({"name": "n" * 201}, "1 to 200 characters"),
        ({"name": "a\r\nSet-Cookie: x"}, "control character"),
        ({"scopes": frozenset()}, "needs a scope"),
        ({"scopes": frozenset({Scope.ADMIN}), "indexes": ("one",)}, "can't be kept to some indexes"),
        ({"scopes": frozenset({Scope.ADMIN}), "kind": Kind.LINK}, "a link can't have the scope admin"),
        ({"indexes": ()}, "1 to 100 indexes"),
        ({"indexes": ("",)}, "can't be the id or name of an index"),
        ({"indexes": ("x" * 201,)}, "can't be the id or name of an index"),
        ({"daily_quota": 0}, "1 to 1000000000 questions a day"),
        ({"daily_quota": 2**63}, "1 to 1000000000 questions a day"),
        ({"expires_in": timedelta()}, "expires after a moment at least"),
        ({"expires_in": timedelta(days=4000)}, "3660 days at most"),
    ],
)
def test_what_cant_be_a_key(changes: dict[str, object], why: str) -> None:
    with pytest.raises(KeyRefused, match=why):
        NewKey(**{"name": "a name", "scopes": ASK, **changes})  # type: ignore[arg-type]


def test_no_key_is_shown_in_what_is_logged(issued: IssuedKey) -> None:
    link = "dasl" + issued.secret[3:]
    for text in (
        f"Authorization: Bearer {issued.secret}",
        f"GET /sign-in/{link} 200",
        f"key={issued.secret}&x=1",
    ):
        shown = masked(text)
        assert issued.secret[17:] not in shown
        assert "***" in shown
        assert masked(shown) == shown
    record = logging.LogRecord("t", logging.INFO, "", 0, "it has %s", (issued.secret,), None)
    assert masked(record.getMessage()) == f"it has {issued.key.prefix}_***"
