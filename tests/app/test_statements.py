"""Statements for payers: that every printed sum adds up, what counts, who sees whose, and what a spreadsheet gets."""

import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update
from typer.testing import CliRunner

from app.callers import Caller, caller_of
from app.statements import BEYOND, NO_INFLUENCE, Amount, Period, StatementRefused, as_csv, divided, statement
from das.cli import build_app
from das.errors import DasError
from das.index import AttributionIndex
from das.manifest import QualityRecord
from das.rights.holders import UNKNOWN_HOLDER
from das.works import Works
from jobs.answered import Answered, answered
from jobs.credentials import Scope
from jobs.models import Job
from tests.app.conftest import scored

TINY = "tiny@000000"
OCTOBER = Period.read("2026-10-01", "2026-11-01")


def answer(shares: dict[str, float] | None, **changes) -> Answered:
    groups = None if shares is None else [{"name": name, "share": share} for name, share in shares.items()]
    told = {"index_id": TINY, "method": "das", "in_model": "likely", "mode": "all", "holders": groups}
    return Answered(**{"id": "att_1"} | told | changes)


@pytest.fixture(scope="module")
def index(tiny_index) -> AttributionIndex:
    """The tiny index, of whose works three have several holders, a hostile one, and none."""
    opened = AttributionIndex.open(tiny_index)
    table = opened.works.table
    holders = table["rights_holder"].to_pylist()
    holders[:3] = ["Ada Lovelace 60%; Eve 40%", "=cmd()", None]
    place = table.column_names.index("rights_holder")
    works = Works(table.set_column(place, "rights_holder", pa.array(holders, pa.string())))
    return AttributionIndex(
        opened.path, opened.manifest.model_copy(update={"content_digest": "0" * 64}), works
    )


def measured(index: AttributionIndex, low: float) -> AttributionIndex:
    quality = QualityRecord(
        method="das", lds=low + 1, low=low, high=low + 2, ceiling=64.0, perfect=80.0, subsets=10, queries=10,
        generated=5, truth="t", truth_digest="d", measured_at="2026-01-01", command="c", versions={},
    )  # fmt: skip
    return AttributionIndex(index.path, index.manifest.model_copy(update={"quality": quality}), index.works)


def rows_of(made) -> dict[str, dict]:
    return {row.rights_holder: row.model_dump() for row in made.shares}


def total(made, column: str) -> Decimal:
    return sum((Decimal(getattr(row, column)) for row in made.shares), Decimal(0))


@given(st.integers(0, 10**7), st.lists(st.floats(0, 1e6) | st.integers(0, 10), min_size=1, max_size=30))
def test_nothing_is_lost_in_dividing(whole, parts):
    if not any(parts):
        with pytest.raises(ValueError, match="nothing to divide by"):
            divided(whole, parts)
        return
    found = divided(whole, parts)
    assert sum(found) == whole
    assert all(
        abs(one - whole * part / sum(parts)) < 1 + 1e-6 * whole
        for one, part in zip(found, parts, strict=True)
    )
    assert all(one == 0 for one, part in zip(found, parts, strict=True) if part == 0)


def test_cents_go_to_the_largest_remainders():
    assert divided(100, [1, 1, 1]) == [34, 33, 33]
    assert divided(7, [0.5, 0.25, 0.25]) == [3, 2, 2]
    assert divided(1, [1, 3]) == [0, 1]


def test_answers_that_estimate_shares_count_and_are_not_called_reliable(index):
    exact = [answer({"Ada Lovelace": 0.5, "Eve": 0.5})]
    near = answer({"Ada Lovelace": 0.25, "Eve": 0.75}, mode="approximate")
    assert statement(measured(index, 60.0), OCTOBER, exact).reliable
    made = statement(measured(index, 60.0), OCTOBER, [*exact, near])
    assert (made.questions, made.reliable) == (2, False)
    assert made.reliable_because.startswith("In 1 answer shares are estimated from a sample")
    assert rows_of(made)["Eve"]["share"] == "0.625000"


def test_answers_of_other_versions_count_and_are_told(index):
    answers = [answer({"Eve": 1.0}), answer({"Ada Lovelace": 1.0}, index_id="tiny@111111")]
    made = statement(measured(index, 60.0), OCTOBER, answers)
    assert [(one.index, one.questions) for one in made.versions] == [(TINY, 1), ("tiny@111111", 1)]
    assert rows_of(made)["Ada Lovelace"]["share"] == rows_of(made)["Eve"]["share"] == "0.500000"
    assert not made.reliable
    assert made.reliable_because.startswith("1 answer came from other versions of the index")
    notes = [row["note"] for row in csv.DictReader(io.StringIO(as_csv(made))) if row["note"]]
    assert "of them answered by tiny@111111" in notes


def test_shares_are_means_over_the_questions_that_count(index):
    answers = [
        answer({"Ada Lovelace": 0.5, "Eve": 0.25, UNKNOWN_HOLDER: 0.25}),
        answer({"Ada Lovelace": 0.25, "Eve": 0.25}),
        answer({"Ada Lovelace": 0.0}),
        answer({"Eve": 1.0}, in_model="unlikely"),
        answer({"Eve": 1.0}, in_model="unsure"),
        answer({"Eve": 1.0}, in_model=None),
        answer(None),
    ]
    made = statement(index, OCTOBER, answers, Amount.read("1000", "EUR"))
    rows = rows_of(made)
    assert made.questions == 3
    assert {one.reason: one.questions for one in made.left_out} == {
        "not-likely": 2, "not-known": 1, "without-holders": 1,
    }  # fmt: skip
    assert (rows["Ada Lovelace"]["share"], rows["Ada Lovelace"]["questions"]) == ("0.250000", 2)
    assert rows["Eve"]["share"] == "0.166667"
    assert rows[BEYOND]["share"] == "0.166667"
    assert rows[UNKNOWN_HOLDER]["share"] == "0.083333"
    assert rows[NO_INFLUENCE]["share"] == "0.333333"
    assert rows["Hokusai"]["share"] == "0.000000"
    assert [total(made, name) for name in ("share", "training_use", "amount", "amount_by_training_use")] == [
        1, 1, 1000, 1000,
    ]  # fmt: skip
    assert rows["Ada Lovelace"]["amount"] == "250.00"
    # 40 works, one of them trained on three times: 42 uses, of which Eve has 40 % of one.
    assert rows["Eve"]["training_use"] == f"{Decimal(1) / Decimal(105):.6f}"
    assert (rows["Eve"]["works"], rows["Ada Lovelace"]["works"]) == (1, 14)
    assert [row.rights_holder for row in made.shares][-3:] == [NO_INFLUENCE, BEYOND, UNKNOWN_HOLDER]
    again = statement(index, OCTOBER, answers[::-1], Amount.read("1000", "EUR"))
    assert again == made


def test_reliable_is_what_was_measured(index):
    answers = [answer({"Eve": 1.0})]
    assert not statement(index, OCTOBER, answers).reliable
    assert "wasn't measured" in statement(index, OCTOBER, answers).reliable_because
    good = statement(measured(index, 45.0), OCTOBER, answers)
    assert good.reliable
    assert rows_of(good)["Eve"]["reliable"]
    assert not rows_of(good)[UNKNOWN_HOLDER]["reliable"]
    assert not statement(measured(index, 35.0), OCTOBER, answers).reliable
    mixed = [*answers, answer({"Eve": 1.0}, method="das-block")]
    assert "das-block" in statement(measured(index, 45.0), OCTOBER, mixed).reliable_because
    screened = [*answers, answer({"Eve": 1.0}, mode="screened")]
    assert "look-alikes only" in statement(measured(index, 45.0), OCTOBER, screened).reliable_because


def test_without_questions_only_training_use_is_told(index):
    made = statement(index, OCTOBER, [], Amount.read("10", "JPY"))
    assert {(row.share, row.amount) for row in made.shares} == {(None, None)}
    assert total(made, "training_use") == 1
    assert total(made, "amount_by_training_use") == 10
    assert not made.reliable


def test_a_spreadsheet_gets_no_formula_and_all_that_was_left_out(index):
    made = statement(index, OCTOBER, [answer({"=cmd()": 0.5, '+1,\n"x"': 0.5}), answer(None)])
    rows = list(csv.DictReader(io.StringIO(as_csv(made))))
    names = [row["rights_holder"] for row in rows]
    assert "'=cmd()" in names
    assert '\'+1,\n"x"' in names
    assert not any(name.startswith(("=", "+", "-", "@")) for name in names)
    notes = {row["note"]: row["questions"] for row in rows if row["note"]}
    assert [count for note, count in notes.items() if "earlier version" in note] == ["1"]
    assert [count for note, count in notes.items() if note.startswith("counted, of tiny@")] == ["1"]


@pytest.mark.parametrize(
    ("since", "until"),
    [("", "2026-11-01"), ("2026-13-01", "2026-11-01"), ("2026-11-01", "2026-11-01"), ("2026-11-02", "2026-11-01"),
     ("1", "2"), ("0001-01-01", "2026-11-01"), ("2026-10-01T00:00:00+99:00", "2026-11-01"),
     ("0001-01-01T00:00+23:00", "2")],
)  # fmt: skip
def test_periods_that_are_none_are_told(since, until):
    with pytest.raises(StatementRefused):
        Period.read(since, until)


def test_moments_are_in_utc():
    period = Period.read("2026-10-01T02:00:00+02:00", "2026-10-02")
    assert period.since == datetime(2026, 10, 1, tzinfo=UTC)
    assert period.until - period.since == timedelta(days=1)


@pytest.mark.parametrize(
    ("amount", "currency"),
    [("1000", None), (None, "EUR"), ("-1", "EUR"), ("1.001", "EUR"), ("1.5", "JPY"), ("1e9", "EUR"), ("NaN", "EUR"),
     ("9" * 16, "EUR"), ("1", "euro"), ("1", "€"), ("", "EUR"), ("١", "EUR")],
)  # fmt: skip
def test_amounts_that_are_none_are_told(amount, currency):
    with pytest.raises(StatementRefused):
        Amount.read(amount, currency)


def test_amounts_have_their_currencys_decimals():
    assert Amount.read("1.005", "KWD") == (1005, "KWD")
    assert Amount(1005, "KWD").written(1005) == "1.005"
    assert Amount(5, "JPY").written(5) == "5"
    assert Amount.read("0.10", "EUR") == (10, "EUR")


@pytest.fixture
def finished(client, ask, store, tiny_index):
    """Have a question answered at a moment; returns its id."""
    opened = AttributionIndex.open(tiny_index)

    def finished(at: datetime, **changes) -> str:
        body = ask()
        (job,) = store.leases.claim("a-worker", 1, [opened.id])
        found = scored(opened, job)
        holders = [{"name": "Ada Lovelace", "share": 0.75}, {"name": "Hokusai", "share": 0.25}]
        found |= {
            "in_model": {"verdict": "likely"},
            "groups": found["groups"] | {"rights_holder": holders},
        } | changes
        assert store.leases.finish(job.token, found, {})
        with store.database.write() as session:
            session.execute(update(Job).where(Job.id == body["id"]).values(finished_at=at))
        return body["id"]

    return finished


def test_a_period_has_its_own_answers(client, finished, store, tmp_path, settings, monkeypatch, tiny_index):
    inside = finished(OCTOBER.since)
    finished(OCTOBER.until - timedelta(seconds=1), in_model={"verdict": "unlikely"})
    finished(OCTOBER.until)
    old = finished(OCTOBER.since, groups={"creator": []})
    index_id = AttributionIndex.open(tiny_index).id
    found = list(answered(store.database, index_id, OCTOBER.since, OCTOBER.until))
    assert [one.id for one in found if one.holders is None] == [old]
    assert len(found) == 3
    period = {"from": "2026-10-01", "to": "2026-11-01"}
    told = client.get("/v1/statements", params={**period, "amount": "10", "currency": "EUR"}).json()
    assert told["questions"] == 1
    assert {one["reason"]: one["questions"] for one in told["left_out"]} == {
        "not-likely": 1, "not-known": 0, "without-holders": 1,
    }  # fmt: skip
    shares = {row["rights_holder"]: (row["share"], row["amount"]) for row in told["shares"]}
    assert shares["Ada Lovelace"] == ("0.750000", "7.50")
    table = client.get("/v1/statements", params={**period, "format": "csv", "index": "tiny"})
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert 'filename="statement-2026-10-01-2026-11-01.csv"' in table.headers["content-disposition"]
    assert "Ada Lovelace,0.750000,14,1,no," in table.text
    for wrong in (
        {"from": "x", "to": "y"},
        {**period, "amount": "1"},
        {**period, "index": "other"},
        {"from": "2026-10-01"},
    ):
        refused = client.get("/v1/statements", params=wrong)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid-request")

    monkeypatch.setattr("app.statements_cli.get_settings", lambda: settings)
    out = tmp_path / "statement.csv"
    asked = [
        "statement",
        "--index",
        str(tiny_index),
        "--from",
        "2026-10-01",
        "--to",
        "2026-11-01",
        "--out",
        str(out),
    ]
    done = CliRunner().invoke(build_app(), asked)
    assert done.exit_code == 0, done.exception
    assert out.read_bytes().decode() == table.text
    assert "1 question counted, 2 not." in done.output
    for wrong in ([*asked, "--key", "das_nobody"], [*asked[:-1], str(tmp_path / "a.xls")]):
        assert isinstance(CliRunner().invoke(build_app(), wrong).exception, DasError)
    # An answer by an earlier version counts; one about another index, whose name begins alike, doesn't.
    for other in ("tiny@0ld", "tiny-2@0ld"):
        moved = finished(OCTOBER.since)
        with store.database.write() as session:
            session.execute(update(Job).where(Job.id == moved).values(index_id=other))
    told = client.get("/v1/statements", params=period).json()
    assert [(one["index"], one["questions"]) for one in told["versions"]] == [("tiny@0ld", 1), (index_id, 1)]
    alone = client.get("/v1/statements", params={**period, "index": index_id}).json()
    assert [(one["index"], one["questions"]) for one in alone["versions"]] == [(index_id, 1)]
    CliRunner().invoke(build_app(), asked)
    assert "of them answered by tiny@0ld" in out.read_text()
    store.erase(moved)
    store.erase(inside)
    assert client.get("/v1/statements", params=period).json()["questions"] == 1


def test_only_admin_sees_what_others_asked(client, finished):
    finished(OCTOBER.since)
    period = {"from": "2026-10-01", "to": "2026-11-01"}
    overrides = client.app.dependency_overrides
    try:
        overrides[caller_of] = lambda: Caller("somebody-else", scopes=frozenset({Scope.READ}))
        assert client.get("/v1/statements", params=period).json()["questions"] == 0
        overrides[caller_of] = lambda: Caller("somebody-else", scopes=frozenset({Scope.READ, Scope.ADMIN}))
        assert client.get("/v1/statements", params=period).json()["questions"] == 1
        overrides[caller_of] = lambda: Caller("somebody-else", scopes=frozenset({Scope.ASK}), key="k")
        assert client.get("/v1/statements", params=period).status_code == 403
    finally:
        overrides.clear()
