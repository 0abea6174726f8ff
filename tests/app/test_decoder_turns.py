"""Turns at the decoders: whoever comes new needn't wait for those who took much."""

import asyncio

import anyio
import pytest

from app import turns
from app.problems import Problem
from app.turns import Turns


def test_who_used_least_is_next_and_one_address_keeps_its_order():
    order = []

    async def take(places, address, name, seconds=0.01):
        async with places.turn(address):
            order.append(name)
            await asyncio.sleep(seconds)

    async def go():
        places = Turns(1, 20, 5)
        greedy = [asyncio.create_task(take(places, "greedy", f"greedy {n}", 0.05)) for n in range(4)]
        await asyncio.sleep(0.07)
        honest = [asyncio.create_task(take(places, f"honest {n}", f"honest {n}")) for n in range(2)]
        await asyncio.gather(*greedy, *honest)

    anyio.run(go)
    assert order == ["greedy 0", "greedy 1", "honest 0", "honest 1", "greedy 2", "greedy 3"]


def test_one_place_is_kept_from_those_who_took_much(monkeypatch):
    monkeypatch.setattr(turns, "HEAVY_S", 0.05)

    async def go():
        places = Turns(2, 20, 5)
        for address in ("a", "b", "c"):
            async with places.turn(address):
                await asyncio.sleep(0.1)
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
            async with asyncio.timeout(0.5), places.turn("new"):
                pass
        release.set()
        await asyncio.gather(*slow)

    anyio.run(go)


def test_waiting_is_bounded_in_number_and_in_time():
    async def go():
        places = Turns(1, 4, 0.2)
        refused = []

        async def ask(address):
            try:
                async with places.turn(address):
                    await asyncio.sleep(0.5)
            except Problem as problem:
                refused.append(problem)

        first = asyncio.create_task(ask("a"))
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(ask("a")) for _ in range(3)]
        await asyncio.sleep(0)
        # The third of one address that would wait is told at once.
        assert len(refused) == 1
        await asyncio.gather(first, *waiting)
        assert len(refused) == 3
        # The place is free again, and nothing is left of those who gave up.
        async with asyncio.timeout(0.5), places.turn("b"):
            pass
        return refused

    for problem in anyio.run(go):
        assert (problem.code, problem.kind.status) == ("busy", 503)
        assert int(problem.headers["Retry-After"]) > 0


def test_who_is_cancelled_gives_the_place_back():
    async def go():
        places = Turns(1, 4, 5)

        async def hold():
            async with places.turn("a"):
                await asyncio.sleep(60)

        for _ in range(3):
            task = asyncio.create_task(hold())
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with asyncio.timeout(0.5), places.turn("b"):
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
