"""Waiters are woken by announcements, and by looking where there are none."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from jobs.broker import Broker
from jobs.errors import StorageError
from jobs.notify import LOOK_WITHOUT_BROKER_S, RECONNECT_S, ChangeFeed, Notifier
from jobs.settings import Settings


def nothing(job_ids: Sequence[str]) -> dict[str, int]:
    """None of these has a version."""
    return {}


def all_alike(job_ids: Sequence[str]) -> dict[str, int]:
    """Each of these stays as it is."""
    return dict.fromkeys(job_ids, 1)


# Far less than the time that a waiter gives, and far more than a wake takes.
SOON_S = 60
LONG_S = 120


def test_an_announcement_wakes_only_who_waits_for_that_job(settings: Settings, broker: Broker) -> None:
    async def scenario() -> tuple[float, bool]:
        feed, notifier = ChangeFeed(settings, all_alike), Notifier(settings)
        await feed.start()
        while not feed.connected:
            await asyncio.sleep(0.01)
        with feed.watch("att_1") as mine, feed.watch("att_2") as other:
            await mine.changed(0)
            await other.changed(0)
            # Each is woken by the first look, which finds out where they are.
            await mine.changed(LONG_S)
            await other.changed(LONG_S)
            waiting = asyncio.create_task(mine.changed(LONG_S))
            others = asyncio.create_task(other.changed(LONG_S))
            began = time.perf_counter()
            await asyncio.to_thread(notifier.publish, "att_1", 2)
            await waiting
            woken = time.perf_counter() - began, others.done()
            others.cancel()
        await feed.stop()
        return woken

    seconds, other_was_woken = asyncio.run(scenario())
    assert seconds < SOON_S
    assert not other_was_woken


def test_a_change_between_looking_and_waiting_is_not_missed(settings: Settings, broker: Broker) -> None:
    async def scenario() -> float:
        feed, notifier = ChangeFeed(settings, all_alike), Notifier(settings)
        await feed.start()
        while not feed.connected:
            await asyncio.sleep(0.01)
        with feed.watch("att_1") as watch:
            # The first look wakes; those after it see nothing new.
            await watch.changed(LONG_S)
            await asyncio.to_thread(notifier.publish, "att_1", 2)
            async with asyncio.timeout(SOON_S):
                while not watch._changed.is_set():
                    await asyncio.sleep(0.01)
            began = time.perf_counter()
            await watch.changed(LONG_S)
            seconds = time.perf_counter() - began
        await feed.stop()
        return seconds

    assert asyncio.run(scenario()) < SOON_S


def test_without_a_broker_waiters_hear_by_looking_and_publishers_go_on(settings: Settings) -> None:
    settings.prepare_data_dir()

    async def scenario() -> tuple[float, bool]:
        versions, asked = {"att_1": 1, "att_2": 1}, []

        def look(job_ids: Sequence[str]) -> dict[str, int]:
            asked.append(sorted(job_ids))
            return dict(versions)

        feed = ChangeFeed(settings, look)
        await feed.start()
        with feed.watch("att_1") as mine, feed.watch("att_2") as other:
            await mine.changed(LONG_S)
            await other.changed(LONG_S)
            waiting = asyncio.create_task(other.changed(LONG_S))
            # Longer than it takes to look for the broker again, of which nobody hears.
            await asyncio.sleep(2 * RECONNECT_S)
            versions["att_1"] = 2
            began = time.perf_counter()
            await mine.changed(LONG_S)
            seconds = time.perf_counter() - began
            assert not waiting.done()
            waiting.cancel()
        # One look for all of them, and none for nobody.
        assert asked == [["att_1", "att_2"]] * len(asked)
        # One that was on its way may end yet.
        await asyncio.sleep(3 * LOOK_WITHOUT_BROKER_S)
        so_far = len(asked)
        await asyncio.sleep(3 * LOOK_WITHOUT_BROKER_S)
        await feed.stop()
        return seconds, len(asked) == so_far

    Notifier(settings).publish("att_1", 2)
    seconds, rests = asyncio.run(scenario())
    assert seconds < SOON_S
    assert rests


def test_what_has_no_version_is_looked_at_each_time(settings: Settings) -> None:
    settings.prepare_data_dir()

    async def scenario() -> None:
        feed = ChangeFeed(settings, nothing)
        await feed.start()
        with feed.watch("bat_1") as watch:
            for _ in range(3):
                await watch.changed(60)
        await feed.stop()

    asyncio.run(asyncio.wait_for(scenario(), 90))


@pytest.mark.parametrize("error", [StorageError("it can't be read"), RuntimeError("nobody thought of this")])
def test_a_database_that_cannot_be_read_wakes_everybody_each_time(
    settings: Settings, error: Exception
) -> None:
    settings.prepare_data_dir()

    def look(job_ids: Sequence[str]) -> dict[str, int]:
        raise error

    async def scenario() -> None:
        feed = ChangeFeed(settings, look)
        await feed.start()
        with feed.watch("att_1") as one, feed.watch("att_2") as other:
            for watch in (one, other, one, other):
                await watch.changed(60)
        await feed.stop()

    asyncio.run(asyncio.wait_for(scenario(), 90))


def test_a_feed_finds_the_broker_when_it_comes_back(settings: Settings, broker: Broker) -> None:
    async def scenario() -> None:
        feed = ChangeFeed(settings, nothing)
        await feed.start()
        for expected in (True, False, True):
            while feed.connected != expected:
                await asyncio.sleep(0.01)
            if expected:
                await asyncio.to_thread(broker.stop)
            else:
                await asyncio.to_thread(broker.start)
        await feed.stop()

    asyncio.run(asyncio.wait_for(scenario(), 120))
