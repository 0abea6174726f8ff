"""The clients of a load: some poll questions as a waiting page does, some upload picture after picture."""

import asyncio
import json
import os
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import h11

from das.errors import SettingsError
from measure.load.connection import Address, Connection, Response, Stream, knock
from measure.load.figures import FULL, RETRY_AFTER, Memory, Requests
from measure.load.forms import CONTENT_TYPE, bodies

QUESTIONS = "/v1/attributions"
LISTED = 20  # questions on one page of the list
LIST_EVERY = 20  # polls: one of so many asks for the list
FINISHED = frozenset({"succeeded", "failed", "cancelled", "erased"})
MOST = {"clients": 1000, "uploaders": 100, "seconds": 600, "polls_per_s": 20}
MOST_STREAMERS = 1000
_PAUSE_S = 1.0  # after a fault, and between two looks at the memory
_ASKED_AT_ONCE = 8
_LOOK_S = 0.1  # between two looks for a new question to follow
NEWEST = 20  # questions that a follower chooses from

QUESTION, CHANGED, LIST, UPLOAD = "question", "question, if it changed", f"list of {LISTED}", "upload"
STREAM, LAST_EVENT = "stream opened", "answer to its last event"


@dataclass(frozen=True)
class Load:
    """How many clients do what, and for how long.

    Attributes:
        clients: each polls `polls_per_s` times a second; every other one with the ETag of what it saw last.
        uploaders: each uploads again as soon as it was answered, or when it was told to come again.
        streamers: each follows the events of the newest question until its end, then of another.
        key: API key that everybody sends; None for a service without keys.
    """

    clients: int = 100
    uploaders: int = 10
    seconds: float = 60.0
    polls_per_s: float = 2.0
    seed: int = 0
    streamers: int = 0
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.streamers <= MOST_STREAMERS:
            raise SettingsError(f"streamers is {self.streamers}; it must be 0 to {MOST_STREAMERS}.")
        for name, most in MOST.items():
            if not 0 < getattr(self, name) <= most:
                raise SettingsError(
                    f"{name} is {getattr(self, name)}; it must be above 0 and at most {most}."
                )


@dataclass
class Run:
    """One load on one service."""

    load: Load
    address: Address
    memory: Memory = field(default_factory=lambda: Memory({}))
    requests: Requests = field(default_factory=Requests)
    accepted: list[str] = field(default_factory=list)

    async def figures(self) -> dict[str, Any]:
        """Put the load on the service and tell what came of it.

        Raises:
            SettingsError: nothing answers at the address, or not yet.
        """
        await knock(self.address)
        load, cpu, busy = self.load, time.process_time(), os.getloadavg()[0]
        pictures = await asyncio.to_thread(bodies, load.seed)
        self._end = asyncio.get_running_loop().time() + load.seconds
        async with asyncio.TaskGroup() as clients:
            clients.create_task(self._watch_memory())
            for number in range(load.uploaders):
                clients.create_task(self._upload(pictures[number :: load.uploaders]))
            for number in range(load.clients):
                clients.create_task(self._poll(number))
            for number in range(load.streamers):
                clients.create_task(self._follow(number))
        ended = datetime.now(UTC)
        cpu = time.process_time() - cpu
        answered = await self._answered_by(ended)
        return {
            "clients": load.clients,
            "polls_per_s": load.polls_per_s,
            "uploaders": load.uploaders,
            "streamers": load.streamers,
            "with_key": load.key is not None,
            "seconds": load.seconds,
            "requests": self.requests.told(load.seconds),
            "questions": {
                "accepted": len(self.accepted),
                "answered": answered,
                "answered_per_s": round(answered / load.seconds, 2),
            },
            "faults": dict(self.requests.faults),
            "memory": self.memory.told(),
            "client_cpu_share": round(cpu / load.seconds, 3),
            # What else the machine was at shows in every figure above.
            "load_average_before": round(busy, 1),
        }

    @property
    def _signed(self) -> dict[str, str]:
        return {} if self.load.key is None else {"Authorization": f"Bearer {self.load.key}"}

    def _left(self) -> float:
        """Seconds until the end."""
        return self._end - asyncio.get_running_loop().time()

    async def _ask(
        self,
        connection: Connection,
        kind: str,
        method: str,
        target: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> Response | None:
        """A request that is counted; None where nothing came back."""
        try:
            response = await connection.request(method, target, {**self._signed, **(headers or {})}, body)
        except (OSError, h11.ProtocolError) as error:
            self.requests.note_broken(kind, error)
            await asyncio.sleep(_PAUSE_S)
            return None
        self.requests.note(kind, response)
        return response

    async def _poll(self, number: int) -> None:
        """Watch one question until it is finished, then another; once in a while look at the list."""
        chance, connection = random.Random(f"{self.load.seed}/{number}"), Connection(self.address)
        interval = 1 / self.load.polls_per_s
        await asyncio.sleep(chance.random() * interval)  # people don't come in step
        due, turn = asyncio.get_running_loop().time(), number
        watched, headers = "", dict[str, str]()
        while self._left() > 0:
            turn += 1
            if turn % LIST_EVERY == 0:
                await self._ask(connection, LIST, "GET", f"{QUESTIONS}?limit={LISTED}")
            elif watched or self.accepted:
                if not watched:
                    watched, headers = chance.choice(self.accepted), {}
                kind = CHANGED if headers else QUESTION
                response = await self._ask(connection, kind, "GET", f"{QUESTIONS}/{watched}", headers)
                if response is not None and response.status == 200:
                    if number % 2 and "etag" in response.headers:
                        headers = {"If-None-Match": response.headers["etag"]}
                    if json.loads(response.body)["state"] in FINISHED:
                        watched = ""
            due += interval
            await asyncio.sleep(max(0.0, min(due - asyncio.get_running_loop().time(), self._left())))
        connection.close()

    async def _upload(self, pictures: list[bytes]) -> None:
        """Upload these bodies, one after another and again from the first."""
        connection, turn = Connection(self.address), 0
        headers = {"Content-Type": CONTENT_TYPE}
        while self._left() > 0:
            body = pictures[turn % len(pictures)]
            turn += 1
            response = await self._ask(connection, UPLOAD, "POST", QUESTIONS, headers, body)
            if response is None:
                continue
            if response.status == 202:
                self.accepted.append(json.loads(response.body)["id"])
            else:
                await self._pause(response)
        connection.close()

    async def _follow(self, number: int) -> None:
        """Follow one question's events to the last, which has to be that it is finished; then another's.

        Begins as many streams a second as others poll, at most.
        """
        chance, connection = random.Random(f"{self.load.seed}/stream/{number}"), Connection(self.address)
        await asyncio.sleep(chance.random())
        seen: set[str] = set()
        due = asyncio.get_running_loop().time()
        while self._left() > 0:
            fresh = [name for name in self.accepted[-NEWEST:] if name not in seen]
            if not fresh:
                await asyncio.sleep(min(_LOOK_S, max(0.0, self._left())))
                continue
            watched = chance.choice(fresh)
            seen.add(watched)
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(max(0.0, min(due - now, self._left())))
            due = max(now, due) + 1 / self.load.polls_per_s
            try:
                stream = await connection.stream(f"{QUESTIONS}/{watched}/events", self._signed)
                self.requests.note(STREAM, stream.opened)
                if stream.opened.status == 200:
                    await self._follow_one(stream)
                else:
                    # What was refused is small: another connection costs less than reading it.
                    connection.close()
                    await self._pause(stream.opened)
            except (OSError, h11.ProtocolError) as error:
                self.requests.note_broken(STREAM, error)
                await asyncio.sleep(_PAUSE_S)
        connection.close()

    async def _follow_one(self, stream: Stream) -> None:
        """Read a question's events to the last; how long after its end the watcher knew of it is counted."""
        name, data = "", b""
        async for event in stream.events():
            name, data = event
            if self._left() <= 0:
                return
        if name in FINISHED:
            finished = datetime.fromisoformat(json.loads(data)["at"])
            lag = max(0.0, (datetime.now(UTC) - finished).total_seconds())
            self.requests.note(LAST_EVENT, Response(200, {}, b"", lag))
        else:
            self.requests.note_fault(f"{STREAM}: it ended after {name or 'nothing'}")

    async def _pause(self, response: Response) -> None:
        """Wait for as long as an answer says, or a little."""
        told = response.headers.get(RETRY_AFTER, "") if response.status in FULL else ""
        await asyncio.sleep(max(0.0, min(float(told) if told.isdigit() else _PAUSE_S, self._left())))

    async def _watch_memory(self) -> None:
        while True:
            self.memory.sample()
            if self._left() <= 0:
                return
            await asyncio.sleep(min(_PAUSE_S, self._left()))

    async def _answered_by(self, ended: datetime) -> int:
        """How many of the accepted questions had their answer at that moment; asked when the load is over."""
        waiting = iter(self.accepted)

        async def count() -> int:
            connection, found = Connection(self.address), 0
            for name in waiting:
                target = f"{QUESTIONS}/{name}"
                told = json.loads((await connection.request("GET", target, self._signed)).body)
                if told["state"] == "succeeded" and datetime.fromisoformat(told["finished_at"]) <= ended:
                    found += 1
            connection.close()
            return found

        return sum(await asyncio.gather(*(count() for _ in range(_ASKED_AT_ONCE))))
