"""What is said while the database is away: once, then now and then, and once when it is back."""

import logging
from types import SimpleNamespace

import pytest

from jobs import outages
from jobs.errors import StorageError
from jobs.outages import Outage

AWAY = StorageError("the database can't be reached")


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.WARNING, logger="jobs.outages")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def clock(monkeypatch):
    """The seconds that have passed, as the test says."""
    clock = SimpleNamespace(now=1000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(outages, "time", clock)
    return clock


def test_it_is_said_once_and_once_when_it_works_again(told, clock):
    outage = Outage()
    for _ in range(50):
        outage.failed("deliver", AWAY)
        outage.failed("sweep", AWAY)
    assert told() == ["waiting (deliver): the database can't be reached"]
    outage.worked("deliver")
    assert len(told()) == 1
    outage.worked("sweep")
    assert told()[1:] == ["it works again after 0 s"]
    outage.worked("sweep")
    assert len(told()) == 2


def test_it_is_said_again_after_a_while_with_all_that_waits(told, clock):
    outage = Outage()
    outage.failed("sweep", AWAY)
    outage.failed("deliver", AWAY)
    clock.now += outages.TOLD_EVERY_S + 0.1
    outage.failed("sweep", AWAY)
    outage.failed("sweep", AWAY)
    assert told()[1:] == ["waiting (deliver, sweep): the database can't be reached"]


def test_what_fails_and_works_by_turns_isnt_said_each_time(told, clock):
    outage = Outage()
    for _ in range(50):
        outage.failed("deliver", AWAY)
        outage.worked("deliver")
    assert len(told()) == 2


def test_what_is_done_rarely_doesnt_hold_back_that_it_works(told, clock):
    outage = Outage()
    outage.failed("tidy", AWAY)
    outage.worked("sweep")
    assert len(told()) == 1
    clock.now += outages.QUIET_S + 0.1
    outage.worked("sweep")
    assert len(told()) == 2
