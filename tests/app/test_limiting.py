"""How often one may ask: counted in a real server, in memory, and not at all."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from limits.aio.storage import MemoryStorage, RedisStorage
from starlette.requests import Request

from app.callers import Caller
from app.key_schemas import Allowance
from app.limiting import Limit, Limiter
from app.problems import Problem
from jobs.broker import Broker, broker_url
from jobs.models import utc_now
from jobs.settings import Settings

KEY = Caller("key_a", "192.0.2.1", key="das_a")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        _env_file=None,
        data_dir=tmp_path / "data",
        api_keys="required",
        rate_limit="3/day",
        address_rate_limit="2/day",
        quota=2,
    )


@pytest.fixture
def broker(settings: Settings) -> Iterator[Broker]:
    broker = Broker(settings)
    broker.start()
    yield broker
    broker.stop()


def request(address: str = "192.0.2.1") -> Request:
    return Request(
        {"type": "http", "client": (address, 1), "headers": [], "method": "GET", "path": "/", "state": {}}
    )


async def outcome(limiter: Limiter, caller: Caller | None, address: str = "192.0.2.1") -> tuple[str, Any]:
    asked = request(address)
    try:
        await limiter.request(asked, caller)
    except Problem as problem:
        return problem.code, problem.headers
    return "through", asked.scope["state"].get("headers")


async def use_up(limiter: Limiter) -> None:
    told = [await outcome(limiter, KEY) for _ in range(4)]
    assert [code for code, _ in told] == ["through"] * 3 + ["rate-limited"]
    assert [headers["RateLimit"].split(";t=")[0] for _, headers in told] == [
        f'"requests";r={left}' for left in (2, 1, 0, 0)
    ]
    refused = told[-1][1]
    assert refused["RateLimit-Policy"] == '"requests";q=3;w=86400'
    assert 0 < int(refused["Retry-After"]) <= 86_400
    assert refused["RateLimit"].endswith(f";t={refused['Retry-After']}")
    # Another key has its own, and so has whoever comes without one.
    assert (await outcome(limiter, Caller("key_b", "192.0.2.1", key="das_b")))[0] == "through"
    assert [(await outcome(limiter, None))[0] for _ in range(3)] == ["through", "through", "rate-limited"]
    assert (await outcome(limiter, None, "192.0.2.2"))[0] == "through"
    # An IPv6 network of 64 bits is one place.
    assert [(await outcome(limiter, None, f"2001:db8::{n}"))[0] for n in range(3)] == [
        "through", "through", "rate-limited",
    ]  # fmt: skip
    await limiter.question(KEY)
    await limiter.refuse_exhausted(KEY)
    await limiter.question(KEY)
    for refuse in (limiter.refuse_exhausted, limiter.question):
        with pytest.raises(Problem) as exhausted:
            await refuse(KEY)
        assert exhausted.value.code == "quota-exhausted"
    assert limiter.let_through == 0


def test_in_a_real_server_which_all_processes_share(settings: Settings, broker: Broker) -> None:
    async def both() -> None:
        limiter = Limiter(settings)
        await use_up(limiter)
        assert isinstance(limiter._storage, RedisStorage)
        other = Limiter(settings)
        assert (await outcome(other, KEY))[0] == "rate-limited"

    asyncio.run(both())


def test_a_server_of_the_operators(settings: Settings, broker: Broker, tmp_path: Path) -> None:
    named = Settings(
        _env_file=None,
        **{**dict(settings), "data_dir": tmp_path / "other", "redis_url": broker_url(settings)},
    )

    async def there() -> None:
        limiter = Limiter(named)
        await use_up(limiter)
        assert isinstance(limiter._storage, RedisStorage)

    asyncio.run(there())


def test_who_comes_at_once_is_counted_together_and_each_for_itself(
    settings: Settings, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once() -> None:
        limiter = Limiter(settings.model_copy(update={"rate_limit": "150/day"}))
        await limiter.request(request(), KEY)
        storage, asked = limiter._storage, list[int]()
        assert isinstance(storage, RedisStorage)
        count = storage.incr
        monkeypatch.setattr(storage, "incr", lambda *given: asked.append(given[2]) or count(*given))
        coming = [asyncio.create_task(outcome(limiter, KEY)) for _ in range(100)]
        other = asyncio.create_task(outcome(limiter, Caller("key_b", "192.0.2.1", key="das_b")))
        while not asked:
            await asyncio.sleep(0)
        # Who comes from here on is counted after those, and who goes away doesn't end it for the others.
        coming += [asyncio.create_task(outcome(limiter, KEY)) for _ in range(100)]
        await asyncio.sleep(0)
        coming[0].cancel()
        coming[-1].cancel()
        told = await asyncio.gather(*coming, return_exceptions=True)
        left = [one[1]["RateLimit"].split(";t=")[0] for one in told if not isinstance(one, BaseException)]
        assert left == [f'"requests";r={max(0, 147 - before)}' for before in range(198)]
        assert [one[0] for one in told if not isinstance(one, BaseException)] == (
            ["through"] * 148 + ["rate-limited"] * 50
        )
        assert (await other)[1]["RateLimit"].startswith('"requests";r=149;')
        assert sorted(asked) == [1, 100, 100]

    asyncio.run(at_once())


def test_in_memory_where_there_is_no_server(settings: Settings) -> None:
    async def here() -> None:
        limiter = Limiter(settings)
        await use_up(limiter)
        assert isinstance(limiter._storage, MemoryStorage)

    asyncio.run(here())


def test_while_counting_fails_everybody_goes_through_and_it_is_counted(
    settings: Settings, broker: Broker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.limiting.PAUSE_S", 600.0)
    asked: list[tuple[Any, ...]] = []

    async def fails() -> None:
        limiter = Limiter(settings)
        await use_up(limiter)
        broker.stop()
        storage = limiter._storage
        assert storage is not None
        count = storage.incr
        monkeypatch.setattr(storage, "incr", lambda *given: asked.append(given) or count(*given))
        told = [await outcome(limiter, KEY) for _ in range(50)]
        assert [code for code, _ in told] == ["through"] * 50
        await limiter.question(KEY)
        await limiter.refuse_exhausted(KEY)
        assert len(asked) == 1, "one of them waits for the server, not all"
        assert limiter.let_through == 52
        works = Allowance(limit=None, used=0, remaining=None, renewed_at=utc_now())
        assert (await limiter.told(KEY, works)).counting is False

    asyncio.run(fails())
    lines = [record for record in caplog.records if record.name == "app.limiting"]
    assert len(lines) == 1
    assert "can't be counted and go through, 1 so far" in lines[0].getMessage()


def test_this_machine_isnt_limited_where_it_needs_no_key(settings: Settings) -> None:
    own = settings.model_copy(update={"api_keys": "auto"})

    async def local() -> list[str]:
        limiter = Limiter(own)
        return [(await outcome(limiter, Caller("local", a), a))[0] for a in 5 * ("127.0.0.1", "::1")]

    assert asyncio.run(local()) == ["through"] * 10


@pytest.mark.parametrize(
    ("text", "most", "seconds"),
    [("100/minute", 100, 60), ("1/second", 1, 1), ("5/hour", 5, 3600), ("9/day", 9, 86400)],
)
def test_rates(text: str, most: int, seconds: int) -> None:
    assert Limit.of("requests", text) == Limit("requests", most, seconds)
    assert Settings(_env_file=None, rate_limit=text).rate_limit == text


@pytest.mark.parametrize(
    "text", ["", "100", "0/minute", "1/week", "-1/day", "1 / day", "1/day;2/hour", "٣/day"]
)
def test_what_isnt_a_rate(text: str) -> None:
    with pytest.raises(ValueError, match="isn't a rate: write it as 100/minute"):
        Settings(_env_file=None, rate_limit=text)


def test_none_is_handed_on_to_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    free = Settings(_env_file=None, rate_limit="none", quota=5)
    assert free.rate_limit is None
    for name, value in free.to_environment().items():
        monkeypatch.setenv(name, value)
    again = Settings(_env_file=None)
    assert (again.rate_limit, again.address_rate_limit, again.quota) == (None, "600/minute", 5)
