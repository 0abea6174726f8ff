"""What another process hides is hidden here in seconds, also after what is hidden couldn't be read for a while."""

import logging
import time
from collections.abc import Callable

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from jobs.audit import Actor
from jobs.opt_outs import NewOptOut
from jobs.store import JobStore

PATIENCE_S = 120


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_row_that_cant_be_read_doesnt_end_the_looking(
    client: TestClient, store: JobStore, caplog: pytest.LogCaptureFixture
) -> None:
    index = client.get("/v1/indexes").json()["items"][0]
    work = client.get(f"/v1/indexes/{index['id']}/works").json()["items"][0]["work_id"]
    thumbnail = f"/v1/works/{work}/thumbnail"
    assert client.get(thumbnail).status_code == 200
    wanted = NewOptOut(owner="ada", index_name=index["name"], works=["w_of_none"], contact="a@b.c")
    row = store.opt_outs.create(wanted, Actor("ada"), hide=True).opt_out

    def write(works: str) -> None:
        with store.database.write() as session:
            statement = text("UPDATE opt_outs SET works = :works, revision = revision + 1 WHERE id = :id")
            session.execute(statement, {"works": works, "id": row.id})

    with caplog.at_level(logging.ERROR, "app.visibility"):
        write("{")
        until(lambda: "it is tried again" in caplog.text)
    # What was known goes on to count.
    assert client.get(thumbnail).status_code == 200
    write(f'["{work}"]')
    until(lambda: client.get(thumbnail).status_code == 404)
    store.opt_outs.withdraw(row.id, Actor("ada"))
    until(lambda: client.get(thumbnail).status_code == 200)
