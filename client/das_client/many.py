"""Asking about many pictures, a few at a time."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Unpack

from das_client.async_client import AsyncClient
from das_client.call import Picture
from das_client.client import Client
from das_client.errors import DasClientError
from das_client.models import AskOptions, Attribution

AT_ONCE = 4


@dataclass(frozen=True)
class Outcome:
    """What became of one picture: its place among those that were given (from 0), and an answer or an error."""

    place: int
    picture: Picture
    answer: Attribution | None
    error: DasClientError | None


def ask_many(
    client: Client,
    pictures: Iterable[Picture],
    *,
    at_once: int = AT_ONCE,
    wait_s: float = 600.0,
    **options: Unpack[AskOptions],
) -> Iterator[Outcome]:
    """The outcomes of many pictures, each as soon as it is there; a refused picture doesn't end the others.

    Pictures are taken from `pictures` when it is their turn, `at_once` of them at a time.
    """

    def one(place: int, picture: Picture) -> Outcome:
        try:
            return Outcome(place, picture, client.ask(picture, wait=wait_s, **options), None)
        except DasClientError as error:
            return Outcome(place, picture, None, error)

    waiting: set[Future[Outcome]] = set()
    pool = ThreadPoolExecutor(at_once)
    try:
        for place, picture in enumerate(pictures):
            waiting.add(pool.submit(one, place, picture))
            if len(waiting) >= at_once:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


async def async_ask_many(
    client: AsyncClient,
    pictures: Iterable[Picture],
    *,
    at_once: int = AT_ONCE,
    wait_s: float = 600.0,
    **options: Unpack[AskOptions],
) -> AsyncIterator[Outcome]:
    """As `ask_many`."""

    async def one(place: int, picture: Picture) -> Outcome:
        try:
            return Outcome(place, picture, await client.ask(picture, wait=wait_s, **options), None)
        except DasClientError as error:
            return Outcome(place, picture, None, error)

    waiting: set[asyncio.Task[Outcome]] = set()
    try:
        for place, picture in enumerate(pictures):
            waiting.add(asyncio.create_task(one(place, picture)))
            if len(waiting) >= at_once:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in waiting:
            task.cancel()
