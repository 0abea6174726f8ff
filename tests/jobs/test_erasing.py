"""After erasing, nothing of a question is left in any file under the data directory, while the service runs on.

Whether it was deleted or its time was over; of batches, shares, and of who opted out, likewise. On PostgreSQL: no
query finds it, and no file of the tables has it once these were written anew.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import text

from das.images import decode_png, encode_png
from jobs.audit import Actor
from jobs.batch_rows import NewItem
from jobs.batches import Batches
from jobs.credentials import Scope
from jobs.keys import Keys, NewKey
from jobs.models import Base, Job, utc_now
from jobs.opt_outs import NewOptOut
from jobs.retention import Retention
from jobs.settings import Settings
from jobs.shares import NewShare
from jobs.store import JobStore

Ask = Callable[..., Job]
HELD = ("photographs@3f9c2a",)
# Long enough that no other file holds them by chance.
WORDS = st.text("abcdefghijklmnopqrstuvwxyz éß€", min_size=12, max_size=2000)


def keyed(store: JobStore) -> str:
    """The owner of a new key's questions, which have their time."""
    return Keys(store.database).create(NewKey(name="a key", scopes=frozenset({Scope.ASK}))).key.owner


def found_in(data_dir: Path, secrets: list[bytes]) -> list[tuple[str, bytes]]:
    """Which files hold which of the secrets."""
    files = [path for path in data_dir.rglob("*") if path.is_file()]
    return [(path.name, secret[:40]) for path in files for secret in secrets if secret in path.read_bytes()]


@examples(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompt=WORDS,
    tag=st.text("abcdefghij", min_size=12, max_size=200),
    seed=st.integers(0, 999),
    ended=st.booleans(),
    in_time=st.booleans(),
)
def test_no_byte_of_it_is_left(
    settings: Settings,
    store: JobStore,
    ask: Ask,
    prompt: str,
    tag: str,
    seed: int,
    ended: bool,
    in_time: bool,
) -> None:
    png = encode_png(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8))
    sha256 = f"{seed:064x}"
    owner = keyed(store)
    job = ask(image=png, prompt=prompt, client_tag=tag, input={"sha256": sha256}, owner=owner)
    if ended:
        (claimed,) = store.leases.claim("worker", 1, HELD)
        store.leases.finish(claimed.token, {"works": [], "summary": prompt}, {})
    elif in_time:
        store.cancel(job.id)
    secrets = [png, decode_png(png).tobytes()[:64], prompt.encode(), tag.encode(), sha256.encode()]
    assert found_in(settings.data_dir, [png]), "the test looks in the right place"
    if in_time:
        retention = Retention(store, Batches(store))
        assert retention.round(utc_now() + timedelta(days=2)).uploads == [job.id]
        assert found_in(settings.data_dir, [png]) == []
        assert retention.round(utc_now() + timedelta(days=91)).results == [job.id]
    else:
        store.erase(job.id)
    assert found_in(settings.data_dir, secrets) == []


def test_what_a_reader_holds_in_the_log_is_forgotten_when_it_has_done(
    settings: Settings, store: JobStore, ask: Ask
) -> None:
    secret = "a very particular prompt"
    job = ask(prompt=secret)
    with store.database.read() as session:
        session.execute(text("SELECT count(*) FROM jobs")).all()
        store.erase(job.id)
        assert store.database.to_forget
        assert [name for name, _ in found_in(settings.data_dir, [secret.encode()])]
    store.database.forget_again()
    assert not store.database.to_forget
    assert found_in(settings.data_dir, [secret.encode()]) == []


@pytest.mark.parametrize("in_time", [False, True])
def test_no_byte_of_a_batch_is_left(settings: Settings, store: JobStore, ask: Ask, in_time: bool) -> None:
    batches = Batches(store)
    owner = keyed(store)
    asked = {"client_tag": "the tag of an item", "prompt": "the prompt of an item"}
    sent = [
        NewItem(asked, "the name of a file.png", picture=b"the bytes of a picture as they were sent"),
        NewItem(asked, "the name of another.png", address="https://example.org/the-address-of-a-picture"),
        NewItem(
            asked, "the name of a third.png", problem={"code": "too-large", "detail": "the detail of it"}
        ),
    ]
    batch = batches.create(owner, sent, client_tag="the tag of the batch")
    secrets = [
        text.encode()
        for text in (
            *asked.values(),
            *(item.name or "" for item in sent),
            "the bytes of a picture",
            "the-address-of-a-picture",
            "the detail of it",
            "the tag of the batch",
        )
    ]
    assert {secret for _, secret in found_in(settings.data_dir, secrets)} == set(secrets)
    if in_time:
        batches.cancel(batch.id, owner)
        removed = Retention(store, batches).round(utc_now() + timedelta(days=91))
        assert removed.batches == [batch.id]
    else:
        batches.erase(batch.id, owner)
    assert found_in(settings.data_dir, secrets) == []


def test_no_byte_of_who_opted_out_is_left(settings: Settings, store: JobStore) -> None:
    told = {"contact": "ada@somewhere.example", "statement": "a statement that names me"}
    wanted = NewOptOut(owner="ada", index_name="photographs", creator="Ada Example", with_token=True, **told)
    received = store.opt_outs.create(wanted, Actor("ada"), hide=True)
    store.opt_outs.verify(received.opt_out.id, Actor("an operator"))
    secrets = [text.encode() for text in (*told.values(), received.opt_out.token_digest or "")]
    assert {secret for _, secret in found_in(settings.data_dir, secrets)} == {one[:40] for one in secrets}
    store.opt_outs.erase(received.opt_out.id, Actor("ada"))
    assert found_in(settings.data_dir, [*secrets, (received.token or "").encode()]) == []
    (hiding,) = store.opt_outs.hiding()[1]
    assert hiding.creator == "Ada Example", "what it hides stays hidden"


@pytest.mark.parametrize("in_time", [False, True])
def test_no_byte_of_a_share_is_left(settings: Settings, store: JobStore, ask: Ask, in_time: bool) -> None:
    job = ask(owner=keyed(store))
    (claimed,) = store.leases.claim("worker", 1, HELD)
    store.leases.finish(claimed.token, {"works": [], "summary": "."}, {})
    wanted = NewShare(job_id=job.id, owner=job.owner, label="for a lawyer whom I name")
    issued = store.shares.create(wanted, Actor("ada"))
    kept = [b"a lawyer whom I name", issued.share.digest.encode()]
    assert {secret for _, secret in found_in(settings.data_dir, kept)} == {one[:40] for one in kept}
    assert found_in(settings.data_dir, [issued.token.encode()]) == [], "the token is kept nowhere"
    if in_time:
        assert Retention(store, Batches(store)).round(utc_now() + timedelta(days=91)).results == [job.id]
    else:
        store.erase(job.id)
    assert found_in(settings.data_dir, kept) == []


@pytest.mark.parametrize("dialect", ["postgresql"], indirect=True)
def test_on_postgresql_no_query_finds_it_and_no_table_once_written_anew(
    settings: Settings, store: JobStore, ask: Ask
) -> None:
    secrets = ["the very prompt of somebody", "the very tag of somebody", 32 * "c7"]
    owner = keyed(store)
    jobs = [
        ask(prompt=secrets[0], client_tag=secrets[1], input={"sha256": secrets[2]}, owner=owner)
        for _ in range(4)
    ]
    contact = "somebody@somewhere.example"
    wanted = NewOptOut(owner=owner, index_name="photographs", creator="Ada Example", contact=contact)
    opt_out = store.opt_outs.create(wanted, Actor("ada"), hide=True).opt_out
    for job in jobs[1:]:
        store.cancel(job.id)
    (claimed,) = store.leases.claim("worker", 1, HELD)
    store.leases.finish(claimed.token, {"works": [], "summary": "."}, {})
    label = "for a lawyer whom somebody names"
    store.shares.create(NewShare(job_id=jobs[0].id, owner=owner, label=label), Actor("ada"))
    engine = store.database.engine.execution_options(isolation_level="AUTOCOMMIT")

    def run(statement: str) -> str:
        with engine.connect() as connection:
            found = connection.execute(text(statement))
            return str(found.scalar()) if found.returns_rows else ""

    run("ANALYZE")
    run("CHECKPOINT")
    folder = Path(run("SHOW data_directory")) / "base"
    folder /= run("SELECT oid FROM pg_database WHERE datname = current_database()")
    known = [one.encode() for one in (*secrets, contact, label)]
    assert {secret for _, secret in found_in(folder, known)} == {one[:40] for one in known}

    for job in jobs[:2]:
        store.erase(job.id)
    Retention(store, Batches(store)).round(utc_now() + timedelta(days=91))
    store.opt_outs.erase(opt_out.id, Actor("ada"))
    for table in Base.metadata.tables:
        for secret in (*secrets, contact, label):
            assert run(f"SELECT count(*) FROM {table} AS one WHERE one::text LIKE '%{secret}%'") == "0", table
    run("VACUUM (FULL, ANALYZE)")
    run("VACUUM FULL pg_statistic")
    run("CHECKPOINT")
    assert found_in(folder, known) == []
    assert found_in(settings.data_dir, [*known, b"the pixels of a test"]) == []
