"""Opt-outs in the database: their states, what they hide, and who they are of."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import event

from jobs.audit import Actor
from jobs.errors import BadCursor
from jobs.opt_outs import (
    NewOptOut,
    OptOut,
    OptOutNotFound,
    OptOutRefused,
    OptOuts,
    holds_token,
)
from jobs.store import JobStore

ADA, OPERATOR = Actor("das_ada", "req_1"), Actor("das_operator", "req_2")
MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def opt_outs(store: JobStore) -> OptOuts:
    return store.opt_outs


@pytest.fixture
def received(opt_outs: OptOuts) -> Callable[..., OptOut]:
    def received(**changes: object) -> OptOut:
        wanted = {
            "owner": "key_ada",
            "index_name": "photographs",
            "works": ["w_1", "w_2"],
            "contact": "a@b.c",
        }
        return opt_outs.create(NewOptOut(**(wanted | changes)), ADA, hide=False).opt_out  # type: ignore[arg-type]

    return received


def test_its_way_and_what_it_hides(opt_outs: OptOuts, received: Callable[..., OptOut]) -> None:
    row = received()
    assert (row.state, row.hides, opt_outs.hiding()[1]) == ("received", False, [])
    verified = opt_outs.verify(row.id, OPERATOR)
    assert (verified.state, verified.hides, verified.hidden_at) == ("verified", True, verified.verified_at)
    (hiding,) = opt_outs.hiding()[1]
    assert (hiding.index_name, hiding.works, hiding.creator) == ("photographs", {"w_1", "w_2"}, None)
    with pytest.raises(OptOutRefused, match="say when"):
        opt_outs.apply(row.id, OPERATOR, None, None)
    opt_outs.apply(row.id, OPERATOR, MOMENT, None)
    applied = opt_outs.apply(row.id, OPERATOR, None, MOMENT)
    assert (applied.state, applied.left_out_at, applied.removed_at) == ("applied", MOMENT, MOMENT)
    assert applied.hides
    with pytest.raises(OptOutRefused, match="can't be rejected: it is applied"):
        opt_outs.reject(row.id, OPERATOR, "no")
    withdrawn = opt_outs.withdraw(row.id, ADA)
    assert (withdrawn.state, withdrawn.hides, opt_outs.hiding()[1]) == ("withdrawn", False, [])
    assert withdrawn.shown_again_at == withdrawn.closed_at is not None
    assert withdrawn.left_out_at == MOMENT


def test_a_rejected_one_stays_so(opt_outs: OptOuts, received: Callable[..., OptOut]) -> None:
    row = received()
    rejected = opt_outs.reject(row.id, OPERATOR, "They are another's.")
    assert (rejected.state, rejected.reason, rejected.shown_again_at) == (
        "rejected",
        "They are another's.",
        None,
    )
    for change in (
        lambda: opt_outs.verify(row.id, OPERATOR),
        lambda: opt_outs.withdraw(row.id, ADA),
        lambda: opt_outs.apply(row.id, OPERATOR, MOMENT, None),
        lambda: opt_outs.reject(row.id, OPERATOR, "again"),
    ):
        with pytest.raises(OptOutRefused, match="it is rejected"):
            change()


def test_each_change_has_a_revision_and_an_entry_of_the_log(
    store: JobStore, opt_outs: OptOuts, received: Callable[..., OptOut]
) -> None:
    assert opt_outs.revision() == 0
    row, seen = received(), {0}
    for change in (opt_outs.verify, opt_outs.verify, opt_outs.withdraw, opt_outs.erase, opt_outs.erase):
        change(row.id, OPERATOR)
        seen.add(opt_outs.revision())
    assert len(seen) == 3, "what was done twice or hides nothing changes nothing"
    entries = [(one.action, one.actor, one.request_id) for one in store.audit.list().events]
    assert entries == [
        ("opt-out.erased", "das_operator", "req_2"),
        ("opt-out.withdrawn", "das_operator", "req_2"),
        ("opt-out.verified", "das_operator", "req_2"),
        ("opt-out.received", "das_ada", "req_1"),
    ]
    assert {one.object for one in store.audit.list().events} == {row.id}


def test_at_receipt_if_the_operator_wishes(opt_outs: OptOuts) -> None:
    wanted = NewOptOut(owner="key_ada", index_name="photographs", creator="Ada", contact="a@b.c")
    row = opt_outs.create(wanted, ADA, hide=True).opt_out
    assert row.hides
    assert opt_outs.hiding()[1][0].creator == "Ada"
    assert opt_outs.verify(row.id, OPERATOR).hidden_at == row.hidden_at
    assert opt_outs.reject(row.id, OPERATOR, "no").shown_again_at is not None
    assert opt_outs.hiding()[1] == []


def test_the_token_is_known_by_its_digest_and_goes_with_the_person(opt_outs: OptOuts) -> None:
    wanted = NewOptOut(
        owner="without-key", index_name="photographs", works=["w_1"], contact="a@b.c", with_token=True
    )
    made = opt_outs.create(wanted, ADA, hide=False)
    assert made.token is not None
    assert made.token not in repr(made)
    row = opt_outs.get(made.opt_out.id)
    assert row is not None
    assert row.token_digest != made.token
    assert holds_token(row, made.token)
    assert not holds_token(row, made.token + "x")
    erased = opt_outs.erase(row.id, ADA)
    assert (erased.contact, erased.statement, erased.state) == (None, None, "received")
    assert not holds_token(erased, made.token)


def test_lists_by_owner_and_state(opt_outs: OptOuts, received: Callable[..., OptOut]) -> None:
    ids = [received().id for _ in range(3)]
    received(owner="key_eve")
    opt_outs.verify(ids[1], OPERATOR)
    assert [row.id for row in opt_outs.list("key_ada").opt_outs] == ids[::-1]
    assert [row.id for row in opt_outs.list(None, "verified").opt_outs] == [ids[1]]
    first = opt_outs.list("key_ada", limit=2)
    assert first.next_cursor == ids[1]
    assert [row.id for row in opt_outs.list("key_ada", None, first.next_cursor).opt_outs] == [ids[0]]
    assert len(opt_outs.list().opt_outs) == 4
    with pytest.raises(BadCursor):
        opt_outs.list(cursor="x")


def test_too_many_that_wait(
    opt_outs: OptOuts, received: Callable[..., OptOut], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.opt_outs.MOST_RECEIVED", 2)
    row, _ = received(), received()
    with pytest.raises(OptOutRefused, match="2 opt-outs wait"):
        received()
    received(owner="key_eve")
    opt_outs.verify(row.id, OPERATOR)
    received()


@pytest.mark.parametrize("opt_out_id", ["opt_" + 32 * "0", "x", "opt_\x00", ""])
def test_what_isnt_there(opt_outs: OptOuts, opt_out_id: str) -> None:
    assert opt_outs.get(opt_out_id) is None
    with pytest.raises(OptOutNotFound):
        opt_outs.verify(opt_out_id, OPERATOR)


def test_one_verified_while_what_is_hidden_is_read_is_read_yet(
    store: JobStore, opt_outs: OptOuts, received: Callable[..., OptOut]
) -> None:
    """Between the two reads: on PostgreSQL the second sees it, on SQLite none. It must not be taken for known."""
    row = received()
    verified: list[OptOut] = []

    def verify(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not verified and "FROM opt_outs" in statement:
            verified.append(row)
            opt_outs.verify(row.id, OPERATOR)

    event.listen(store.database.engine, "after_cursor_execute", verify)
    try:
        revision, hidden = opt_outs.hiding()
    finally:
        event.remove(store.database.engine, "after_cursor_execute", verify)
    assert verified
    assert revision != opt_outs.revision() or [one.works for one in hidden] == [{"w_1", "w_2"}]
    assert [one.works for one in opt_outs.hiding()[1]] == [{"w_1", "w_2"}]
