"""What a service answers for one client and for several at once, and how long one waits beside a batch."""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import h11
import numpy as np

from das.errors import SettingsError
from measure.load.clients import FINISHED, QUESTIONS
from measure.load.connection import Address, Connection, Response, knock
from measure.load.figures import FULL, RETRY_AFTER
from measure.load.forms import CONTENT_TYPE, bodies, form

BATCHES = "/v1/attribution-batches"
MOST_OF_A_BATCH = 100
"""Pictures that one batch may have."""
WAIT_S = 30
MOST = {"clients": 100, "seconds": 600, "rounds": 20}
MOST_BULK = 10_000
_WARM_UP_S = 3.0
_PAUSE_S = 1.0
_LOOK_S = 0.2
_PATIENCE_S = 60.0
"""Without an answer for so long beside the seconds of a phase, the trial is given up."""
_CANCEL_TRIES = 5


@dataclass(frozen=True)
class Trial:
    """What is asked of the service.

    Attributes:
        clients: so many ask at once, against one; each asks again as soon as it has its answer.
        seconds: how long one client asks in a round, and how long the several do.
        rounds: of both in turn.
        bulk: pictures that are sent in batches, beside which one client asks until all are answered; 0: none.
        bulk_seconds: after which what is left of them is cancelled.
        key: API key that everybody sends; None for a service without keys.
    """

    clients: int = 8
    seconds: float = 15.0
    rounds: int = 3
    bulk: int = 0
    bulk_seconds: float = 300.0
    seed: int = 0
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.bulk <= MOST_BULK:
            raise SettingsError(f"bulk is {self.bulk}; it must be 0 to {MOST_BULK:,}.")
        if not 0 < self.bulk_seconds <= 6 * 3600:
            raise SettingsError(
                f"bulk_seconds is {self.bulk_seconds:g}; it must be above 0 and at most 21,600."
            )
        for name, most in MOST.items():
            if not 0 < getattr(self, name) <= most:
                raise SettingsError(
                    f"{name} is {getattr(self, name)}; it must be above 0 and at most {most}."
                )


@dataclass(frozen=True)
class Answered:
    """One question: seconds from its first byte to its answer, and where the service says that they went, in ms."""

    seconds: float
    parts: dict[str, float]


@dataclass
class Phase:
    """What some clients were answered in a time."""

    clients: int
    seconds: float
    answered: list[Answered] = field(default_factory=list)
    refused: int = 0

    @property
    def per_s(self) -> float:
        """Questions answered in a second."""
        return len(self.answered) / self.seconds

    @property
    def p50_ms(self) -> float:
        """The median of the answers' times."""
        return _quantile(self.answered, 0.5)

    @property
    def p95_ms(self) -> float:
        """The 95th percentile of the answers' times."""
        return _quantile(self.answered, 0.95)


class Throughput:
    """One trial of one service."""

    def __init__(self, trial: Trial, address: Address) -> None:
        self._trial = trial
        self._address = address
        self._forms = bodies(trial.seed)
        self._asked = 0
        self._given_up_at = float("inf")

    async def figures(self) -> dict[str, Any]:
        """Ask, and tell how many questions were answered in how much time.

        Raises:
            SettingsError: nothing answers at the address or not yet, a question fails, the batches don't fit, or
                nothing is answered for a minute more than a phase has.
        """
        trial = self._trial
        cpu, began = time.process_time(), time.perf_counter()
        await self.begin()
        alone, together = [], []
        for _ in range(trial.rounds):
            alone.append(await self.phase(1, trial.seconds))
            together.append(await self.phase(trial.clients, trial.seconds))
        ratios = sorted(many.per_s / one.per_s for one, many in zip(alone, together, strict=True))
        figures = {
            "clients": trial.clients,
            "seconds": trial.seconds,
            "rounds": trial.rounds,
            "one": figures_of(alone),
            "several": figures_of(together),
            "ratio": round(statistics.median(ratios), 3),
            "ratio_low": round(ratios[0], 3),
            "ratio_high": round(ratios[-1], 3),
            "bulk": await self._beside_bulk(alone) if trial.bulk else None,
        }
        taken = time.perf_counter() - began
        return {**figures, "client_cpu_share": round((time.process_time() - cpu) / taken, 3)}

    async def begin(self) -> None:
        """See that the service answers, and have it warmed up.

        Raises:
            SettingsError: as of `figures`.
        """
        await knock(self._address)
        await self.phase(self._trial.clients, _WARM_UP_S)

    @property
    def _signed(self) -> dict[str, str]:
        return {} if self._trial.key is None else {"Authorization": f"Bearer {self._trial.key}"}

    async def phase(self, clients: int, seconds: float) -> Phase:
        """Let so many ask for so long, or until the first answer."""
        phase, began = Phase(clients, seconds), time.perf_counter()
        self._be_patient()
        try:
            async with asyncio.TaskGroup() as asking:
                for _ in range(clients):
                    asking.create_task(self._ask_until(phase, began, seconds))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return phase

    def _be_patient(self) -> None:
        """Wait from now on for the next answer."""
        self._given_up_at = time.perf_counter() + self._trial.seconds + _PATIENCE_S

    async def _ask_until(self, phase: Phase, began: float, seconds: float) -> None:
        connection = Connection(self._address)
        while time.perf_counter() - began < seconds or not phase.answered:
            answered = await self._ask(connection, phase)
            passed = time.perf_counter() - began
            # What comes too late doesn't count, but where nothing came in time the first does, with its time.
            if answered is not None and (passed <= seconds or not phase.answered):
                phase.answered.append(answered)
                phase.seconds = max(seconds, passed)
        connection.close()

    async def _ask(self, connection: Connection, phase: Phase) -> Answered | None:
        """Ask about the next picture and wait for its answer; None where the service had no room."""
        picture = self._forms[self._asked % len(self._forms)]
        self._asked += 1
        began = time.perf_counter()
        response = await self._send(connection, "POST", QUESTIONS, picture, {"Prefer": f"wait={WAIT_S}"})
        if response is None:
            phase.refused += 1
            return None
        told = json.loads(response.body)
        while told["state"] not in FINISHED:
            target = f"{QUESTIONS}/{told['id']}?wait={WAIT_S}"
            response = await self._send(connection, "GET", target)
            if response is not None:
                told = json.loads(response.body)
        if told["state"] != "succeeded":
            raise SettingsError(f"a question ended without an answer: {told.get('error')}")
        self._be_patient()
        return Answered(time.perf_counter() - began, told["timings_ms"] or {})

    async def _send(
        self,
        connection: Connection,
        method: str,
        target: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> Response | None:
        """The answer; None, after as long a pause as it asks for, where it says that the service is full.

        Raises:
            SettingsError: any other answer than success, or nothing was answered for too long.
        """
        if time.perf_counter() > self._given_up_at:
            raise SettingsError(
                f"nothing was answered in {self._trial.seconds + _PATIENCE_S:g} s: the service is full, or its worker"
                " doesn't come to it. Look at its log and queue, or give more --seconds."
            )
        typed = {"Content-Type": CONTENT_TYPE} if body else {}
        try:
            response = await connection.request(
                method, target, {**self._signed, **typed, **(headers or {})}, body
            )
        except (OSError, h11.ProtocolError) as error:
            raise SettingsError(f"the service gave no answer: {error}") from error
        if response.status in FULL:
            await _pause(response)
            return None
        if response.status not in (200, 202):
            raise SettingsError(
                f"{method} was answered {response.status}: {response.body.decode(errors='replace')}"
            )
        return response

    async def _beside_bulk(self, alone: Sequence[Phase]) -> dict[str, Any]:
        """One client asks while pictures of batches are computed, until those are over; what is left is cancelled."""
        trial, names = self._trial, list[str]()
        batches = Connection(self._address)
        try:
            for place, count in enumerate(_parts(trial.bulk)):
                names.append(await self._send_batch(batches, count, place))
                self._be_patient()
            while not (first := await self._ended(batches, names)):
                await asyncio.sleep(_LOOK_S)
            phase, ended = await self._ask_beside(batches, names)
        finally:
            batches.close()
            await self._cancel(names)
        unloaded = _quantile([one for each in alone for one in each.answered], 0.95)
        return {
            "pictures": trial.bulk,
            "answered": ended - first,
            "per_s": round((ended - first) / phase.seconds, 2),
            "questions": figures_of([phase]),
            "p95_ratio": round(phase.p95_ms / unloaded, 3),
        }

    async def _ask_beside(self, batches: Connection, names: Sequence[str]) -> tuple[Phase, int]:
        """What one client is answered until the batches are over, and how many of their pictures had ended then."""
        connection = Connection(self._address)
        phase, began = Phase(1, 0.0), time.perf_counter()
        self._be_patient()
        left = asyncio.create_task(self._watch(batches, names, began + self._trial.bulk_seconds))
        try:
            while not left.done() or not phase.answered:
                answered = await self._ask(connection, phase)
                if answered is not None and (not left.done() or not phase.answered):
                    phase.answered.append(answered)
            ended, phase.seconds = await left, time.perf_counter() - began
        finally:
            left.cancel()
            await asyncio.gather(left, return_exceptions=True)
            connection.close()
        return phase, ended

    async def _cancel(self, names: Sequence[str]) -> None:
        """Cancel every batch that goes on.

        Raises:
            SettingsError: one can't be cancelled; the others are, all the same.
        """
        connection, still = Connection(self._address), list[str]()
        for name in names:
            try:
                for _ in range(_CANCEL_TRIES):
                    response = await connection.request("POST", f"{BATCHES}/{name}/cancel", self._signed)
                    if response.status not in FULL:
                        break
                    await _pause(response)
            except (OSError, h11.ProtocolError) as error:
                still.append(f"{name} ({error})")
            else:
                if response.status not in (200, 409):
                    still.append(f"{name} ({response.status})")
        connection.close()
        if still:
            raise SettingsError(f"these batches couldn't be cancelled and may go on: {', '.join(still)}")

    async def _send_batch(self, connection: Connection, count: int, place: int) -> str:
        """Send a batch of pictures that nothing else asks about; its id."""
        pictures = form(np.random.default_rng([self._trial.seed, place]), count)
        response = await self._send(connection, "POST", BATCHES, pictures)
        if response is None:
            raise SettingsError(
                f"the service has no room for {self._trial.bulk:,} pictures of batches: start it with"
                f" DAS_BATCH_ITEMS_LIMIT={2 * self._trial.bulk}, of which one owner gets half, or send less --bulk."
            )
        return str(json.loads(response.body)["id"])

    async def _watch(self, connection: Connection, names: Sequence[str], until: float) -> int:
        """How many pictures had ended when all had, or at that moment."""
        while (
            ended := await self._ended(connection, names)
        ) < self._trial.bulk and time.perf_counter() < until:
            await asyncio.sleep(_LOOK_S)
        return ended

    async def _ended(self, connection: Connection, names: Sequence[str]) -> int:
        ended = 0
        for name in names:
            response = await self._send(connection, "GET", f"{BATCHES}/{name}?limit=1")
            counts = {} if response is None else json.loads(response.body)["counts"]
            if counts.get("failed"):
                raise SettingsError(f"{counts['failed']} pictures of a batch ended without an answer.")
            ended += counts.get("succeeded", 0)
        return ended


def lines(figures: dict[str, Any]) -> list[str]:
    """The figures for people."""

    def line(who: str, told: dict[str, Any]) -> str:
        times = f"p50 {told['p50_ms']:.0f} ms, p95 {told['p95_ms']:.0f} ms"
        return f"{who}: {told['per_s']:.1f} answers a second, {times}, {told['refused']} refused"

    said = [
        line("one client", figures["one"]),
        line(f"{figures['clients']} clients", figures["several"]),
        f"ratio {figures['ratio']:.2f} ({figures['ratio_low']:.2f} to {figures['ratio_high']:.2f})",
    ]
    if (bulk := figures["bulk"]) is not None:
        said += [
            line(f"one client beside a batch at {bulk['per_s']:.1f} pictures a second", bulk["questions"]),
            f"its p95 is {bulk['p95_ratio']:.2f} times that without the batch",
        ]
    return said


async def _pause(response: Response) -> None:
    """As long as a full service asks for, ten seconds at most."""
    told = response.headers.get(RETRY_AFTER, "")
    await asyncio.sleep(min(float(told), 10.0) if told.isdigit() else _PAUSE_S)


def _parts(bulk: int) -> list[int]:
    """Sizes of the batches that so many pictures are sent in."""
    whole, rest = divmod(bulk, MOST_OF_A_BATCH)
    return [MOST_OF_A_BATCH] * whole + [rest] * bool(rest)


def figures_of(phases: Sequence[Phase]) -> dict[str, Any]:
    """The phases of one kind together; the parts of an answer are medians."""
    answered = [one for phase in phases for one in phase.answered]
    names = dict.fromkeys(name for one in answered for name in one.parts)
    return {
        "answered": len(answered),
        "refused": sum(phase.refused for phase in phases),
        "per_s": round(len(answered) / sum(phase.seconds for phase in phases), 2),
        "p50_ms": round(_quantile(answered, 0.5), 2),
        "p95_ms": round(_quantile(answered, 0.95), 2),
        "parts_ms": {
            name: round(statistics.median(one.parts[name] for one in answered if name in one.parts), 2)
            for name in names
        },
    }


def _quantile(answered: Sequence[Answered], part: float) -> float:
    return 1e3 * float(np.quantile([one.seconds for one in answered], part))
