"""The directory that a distributed build and its workers share: `OUT.shards/ID/`, on a disk that all of them see.

`plan.json` and `digests.txt` say what is built. For every shard there appear, in this order, `claim-N.json` while
somebody computes it, its products `shard-N.npz` and its kernel sums `sums-N.npz`, or `failed-N.json`. Each is whole
or not there, and whoever computes a shard writes the same bytes, so it does no harm if two do. It lies beside the
index's own directory and not in it: a worker that comes late can't leave a file in a finished index.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from das import durable
from das.config import BuildConfig
from das.errors import BuildError
from das.manifest import ExtensionRecord, canonical_json
from index_build.workspace import ShardProducts, write_products

BEAT_S = 2.0
"""Seconds between two touches of a claim."""

_PLAN, _DIGESTS, _COUNTED = "plan.json", "digests.txt", "counted.txt"


class Plan(BaseModel):
    """What a build worker has to know of a build.

    Attributes:
        directory: the coordinator's, which relative paths of `config` are relative to.
        identity: everything that decides the index's numbers (`index_build.inputs.identity`).
        begun: of the unfinished build that the shards are counted in (`Workspace.token`).
        threads: that torch computes with; sums of another number of them differ in their last bits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    config: BuildConfig
    directory: str
    follow_links: bool
    works_format: str
    creator_from: str | None
    strict: bool
    works: int
    shards: int
    identity: dict[str, Any]
    begun: str
    versions: dict[str, str]
    extensions: tuple[ExtensionRecord, ...]
    threads: int

    @property
    def id(self) -> str:
        """The same for every run of one build that gives the same bits, and for no other: what is left is trusted."""
        decides = (
            self.identity,
            self.begun,
            self.versions,
            [str(one) for one in self.extensions],
            self.threads,
        )
        return hashlib.sha256(canonical_json(decides)).hexdigest()[:16]


@dataclass(frozen=True)
class Claim:
    """Who computes a shard: host, process and device; `beat` changes while it does."""

    shard: int
    worker: str
    beat: int


@dataclass(frozen=True)
class Failure:
    """Why a shard couldn't be computed, and by whom."""

    shard: int
    worker: str
    message: str


class Exchange:
    """One build's directory. Reading what isn't there (any more) gives nothing; only `read_plan` raises."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def begin(cls, out: Path, plan: Plan, digests: Sequence[str]) -> "Exchange":
        """Make the directory of a build of `out`, or find it again; what failed in it is forgotten."""
        exchange = cls(exchange_path(out) / plan.id)
        for other in exchange_path(out).glob("*"):
            if other != exchange.path:
                shutil.rmtree(other, ignore_errors=True)
        durable.make_directory(exchange.path)
        for failed in exchange.path.glob("failed-*.json"):
            failed.unlink(missing_ok=True)
        durable.write_bytes(exchange.path / _DIGESTS, "\n".join(digests).encode())
        durable.write_bytes(exchange.path / _PLAN, plan.model_dump_json().encode())
        return exchange

    def read_plan(self) -> Plan | None:
        """The plan; None where the build is over.

        Raises:
            BuildError: it was written by another version of das.
        """
        try:
            return Plan.model_validate_json((self.path / _PLAN).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise BuildError(f"{self.path / _PLAN} was written by another version of das.") from error

    @property
    def is_there(self) -> bool:
        """Whether the build's plan can be read; not any more once it is over, or the disk is gone."""
        return (self.path / _PLAN).is_file()

    def digests(self) -> list[str]:
        """The sha256 of every work's file, in the source's order; "" for one that can't be read."""
        return (self.path / _DIGESTS).read_text().split("\n")

    def leave(self, shard: int, products: ShardProducts, sums: dict[str, np.ndarray]) -> None:
        """Leave what a shard gave: its products, then its kernel sums (k, k) float64."""
        write_products(self.products(shard), products)
        named: dict[str, Any] = sums
        durable.write_file(self._sums(shard), lambda stream: np.savez(stream, **named))

    def fail(self, shard: int, worker: str, message: str) -> None:
        """Leave word that a shard can't be computed."""
        durable.write_json(self.path / f"failed-{shard:05d}.json", {"worker": worker, "message": message})

    def products(self, shard: int) -> Path:
        """The file of a shard's products."""
        return self.path / f"shard-{shard:05d}.npz"

    def left_at(self, shard: int) -> float | None:
        """When a shard was done, in seconds since 1970; None if its products aren't here."""
        try:
            return self.products(shard).stat().st_mtime
        except FileNotFoundError:
            return None

    def is_done(self, shard: int) -> bool:
        """Whether a shard waits to be counted."""
        return self._sums(shard).is_file()

    @property
    def counted(self) -> int:
        """How many shards, from the first, have been counted."""
        try:
            return int((self.path / _COUNTED).read_text())
        except FileNotFoundError:
            return 0

    def sums(self, shard: int) -> dict[str, np.ndarray]:
        """The kernel sums of a shard that is done."""
        with np.load(self._sums(shard), allow_pickle=False) as pieces:
            return {name: pieces[name] for name in pieces.files}

    def forget(self, shard: int, *, counted: bool = True) -> None:
        """Remove what is left of a shard: it is counted, or, if not `counted`, it isn't whole and is wanted again."""
        if counted:
            durable.write_bytes(self.path / _COUNTED, str(shard + 1).encode())
        self._sums(shard).unlink(missing_ok=True)
        self.products(shard).unlink(missing_ok=True)

    def done(self) -> set[int]:
        """The shards that wait to be counted."""
        counted = self.counted
        return {number for path in self.path.glob("sums-*.npz") if (number := _number(path)) >= counted}

    def claims(self) -> list[Claim]:
        """Who computes what."""
        return [Claim(_number(path), body["worker"], beat) for path, body, beat in self._found("claim")]

    def failures(self) -> list[Failure]:
        """What couldn't be computed."""
        return [
            Failure(_number(path), body["worker"], body["message"]) for path, body, _ in self._found("failed")
        ]

    @contextmanager
    def claimed(self, shard: int, worker: str) -> Iterator[None]:
        """Tell, as long as this lasts, that `worker` computes a shard."""
        path = self.path / f"claim-{shard:05d}.json"
        durable.write_json(path, {"worker": worker})
        over = Event()

        def beat() -> None:
            while not over.wait(BEAT_S):
                try:
                    os.utime(path)
                except OSError:  # the build is over, or the disk is away: neither is the claim's to mend
                    continue

        beating = Thread(target=beat, name="claim", daemon=True)
        beating.start()
        try:
            yield
        finally:
            over.set()
            beating.join()
            path.unlink(missing_ok=True)

    def _sums(self, shard: int) -> Path:
        return self.path / f"sums-{shard:05d}.npz"

    def _found(self, kind: str) -> Iterator[tuple[Path, dict[str, Any], int]]:
        for path in sorted(self.path.glob(f"{kind}-*.json")):
            try:
                yield path, json.loads(path.read_bytes()), path.stat().st_mtime_ns
            except FileNotFoundError:
                continue


def exchange_path(out: Path) -> Path:
    """Where the directories of the builds of `out` are."""
    return out.with_name(out.name + durable.SHARDS_SUFFIX)


def remove_exchange(out: Path) -> None:
    """Remove what the builds of `out` left, though a late worker may be writing there."""
    for _ in range(5):
        shutil.rmtree(exchange_path(out), ignore_errors=True)
        if not exchange_path(out).exists():
            return
        time.sleep(0.1)


def _number(path: Path) -> int:
    return int(path.stem.split("-")[1])
