"""Turns at the decoders: whoever comes new needn't wait for those who took much."""

import asyncio
from types import SimpleNamespace

import anyio
import pytest

from app import turns
from app.problems import Problem
from app.turns import Turns

PATIENCE_S = 60


@pytest.fixture
def clock(monkeypatch):
    """What use is measured by: seconds, which pass only where a test adds some."""
    now = [0.0]
    monkeypatch.setattr(turns, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_who_used_least_is_next_and_one_address_keeps_its_order(clock):
    order = []

    async def go():
        places = Turns(1, 20, PATIENCE_S)
        at_second, go_on = asyncio.Event(), asyncio.Event()

        async def take(address, name, seconds):
            async with places.turn(address):
                order.append(name)
                clock[0] += seconds
                if name == "greedy 1":
                    at_second.set()
                    await go_on.wait()

        greedy = [asyncio.create_task(take("greedy", f"greedy {n}", 0.05)) for n in range(4)]
        await at_second.wait()
        honest = [asyncio.create_task(take(f"honest {n}", f"honest {n}", 0.01)) for n in range(2)]
        while sum(len(use.waiting) for use in places._uses.values()) < 4:
            await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*greedy, *honest)

    anyio.run(go)
    assert order == ["greedy 0", "greedy 1", "honest 0", "honest 1", "greedy 2", "greedy 3"]


def test_one_place_is_kept_from_those_who_took_much(clock):
    async def go():
        places = Turns(2, 20, PATIENCE_S)
        for address in ("a", "b", "c"):
            async with places.turn(address):
                clock[0] += 2 * turns.HEAVY_S
        running = asyncio.Event()
        release = asyncio.Event()

        async def heavy(address):
            async with places.turn(address):
                running.set()
                await release.wait()

        slow = [asyncio.create_task(heavy(address)) for address in ("a", "b", "c")]
        await running.wait()
        # Three slow ones at once, and yet nobody new waits.
        for _ in range(3):
            async with asyncio.timeout(PATIENCE_S), places.turn("new"):
                pass
        release.set()
        await asyncio.gather(*slow)

    anyio.run(go)


def test_waiting_is_bounded_in_number_and_in_time():
    async def go():
        places = Turns(1, 4, 0.2)
        refused, over = [], asyncio.Event()

        async def ask(address):
            try:
                async with places.turn(address):
                    await over.wait()
            except Problem as problem:
                refused.append(problem)

        first = asyncio.create_task(ask("a"))
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(ask("a")) for _ in range(3)]
        await asyncio.sleep(0)
        # The third of one address that would wait is told at once.
        assert len(refused) == 1
        await asyncio.gather(*waiting)
        assert len(refused) == 3
        over.set()
        await first
        # The place is free again, and nothing is left of those who gave up.
        async with asyncio.timeout(PATIENCE_S), places.turn("b"):
            pass
        return refused

    for problem in anyio.run(go):
        assert (problem.code, problem.kind.status) == ("busy", 503)
        assert int(problem.headers["Retry-After"]) > 0


def test_who_is_cancelled_gives_the_place_back():
    async def go():
        places = Turns(1, 4, PATIENCE_S)

        async def hold():
            async with places.turn("a"):
                await asyncio.sleep(60)

        for _ in range(3):
            task = asyncio.create_task(hold())
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with asyncio.timeout(PATIENCE_S), places.turn("b"):
            pass

    anyio.run(go)


def test_addresses_are_forgotten(monkeypatch):
    monkeypatch.setattr(turns, "REMEMBERED", 5)

    async def go():
        places = Turns(1, 4, 5)
        for number in range(50):
            async with places.turn(str(number)):
                pass
        return len(places._uses)

    assert anyio.run(go) <= 6
