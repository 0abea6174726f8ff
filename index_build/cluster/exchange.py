"""The place that a distributed build and its workers share: `OUT.shards/ID/` on a disk that all see, or in a store.

`plan.json` and `digests.txt` say what is built. For every shard there appear, in this order, `claim-N.json` while
somebody computes it, its products `shard-N.npz` and its kernel sums `sums-N.npz`, or `failed-N.json`. Each is whole
or not there, and whoever computes a shard writes the same bytes, so it does no harm if two do. It is never the
index's own directory: a worker that comes late can't leave a file in a finished index.
"""

import hashlib
import io
import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Event, Thread
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from das import durable
from das.config import BuildConfig
from das.errors import BuildError, SettingsError
from das.manifest import ExtensionRecord, canonical_json
from index_build.cluster.place import PlaceAway, place_at
from index_build.progress import Reporter
from index_build.workspace import ShardProducts, save_products

BEAT_S = 2.0
"""Seconds between two touches of a claim."""

_PLAN, _DIGESTS, _COUNTED = "plan.json", "digests.txt", "counted.txt"
_STORES = "stores.json"


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
    """Who computes a shard: host, process and device; `beat`, in seconds since 1970, changes while it does."""

    shard: int
    worker: str
    beat: float


@dataclass(frozen=True)
class Failure:
    """Why a shard couldn't be computed, and by whom."""

    shard: int
    worker: str
    message: str


class Exchange:
    """One build's place. Reading what isn't there (any more) gives nothing; only `read_plan` raises.

    In a store all of it may raise PlaceAway.
    """

    def __init__(self, location: str) -> None:
        """
        Raises:
            SettingsError: the location is a URL that can't be used.
        """
        self._place = place_at(location)
        self.location = self._place.location
        self.look_s = self._place.look_s

    @classmethod
    def begin(cls, shared: "Shared", plan: Plan, digests: Sequence[str]) -> "Exchange":
        """Make the place of a build, or find it again; what failed in it is forgotten, and what other builds left."""
        exchange = cls(shared.of(plan.id))
        shared.remove(besides=plan.id)
        place = exchange._place
        place.make()
        for failed in place.listed("failed-*.json"):
            place.remove(failed)
        exchange._write(_DIGESTS, "\n".join(digests).encode())
        exchange._write(_PLAN, plan.model_dump_json().encode())
        return exchange

    def read_plan(self) -> Plan | None:
        """The plan; None where the build is over.

        Raises:
            BuildError: it was written by another version of das.
        """
        try:
            return Plan.model_validate_json(self._place.read(_PLAN))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise BuildError(f"{self.location}/{_PLAN} was written by another version of das.") from error

    @property
    def is_there(self) -> bool:
        """Whether the build's plan can be read; not any more once it is over, or the disk is gone."""
        return bool(self._place.listed(_PLAN))

    def digests(self) -> list[str]:
        """The sha256 of every work's file, in the source's order; "" for one that can't be read."""
        return self._place.read(_DIGESTS).decode().split("\n")

    def leave(self, shard: int, products: ShardProducts, sums: dict[str, np.ndarray]) -> None:
        """Leave what a shard gave: its products, then its kernel sums (k, k) float64.

        Raises:
            FileNotFoundError: the build is over.
        """
        self._check_wanted()
        self._place.write(_products(shard), lambda stream: save_products(stream, products))
        named: dict[str, Any] = sums
        self._place.write(_sums(shard), lambda stream: np.savez(stream, **named))

    def fail(self, shard: int, worker: str, message: str) -> None:
        """Leave word that a shard can't be computed; as `leave`, while the build wants to know."""
        self._check_wanted()
        self._write(f"failed-{shard:05d}.json", _json({"worker": worker, "message": message}))

    def bring(self, shard: int, path: Path) -> bool:
        """Bring a shard's products to `path`; False if they aren't here."""
        return self._place.take(_products(shard), path)

    def is_done(self, shard: int) -> bool:
        """Whether a shard waits to be counted."""
        return bool(self._place.listed(_sums(shard)))

    @property
    def counted(self) -> int:
        """How many shards, from the first, have been counted."""
        try:
            return int(self._place.read(_COUNTED))
        except FileNotFoundError:
            return 0

    def sums(self, shard: int) -> dict[str, np.ndarray]:
        """The kernel sums of a shard that is done."""
        with np.load(io.BytesIO(self._place.read(_sums(shard))), allow_pickle=False) as pieces:
            return {name: pieces[name] for name in pieces.files}

    def forget(self, shard: int, *, counted: bool = True) -> None:
        """Remove what is left of a shard: it is counted, or, if not `counted`, it isn't whole and is wanted again."""
        if counted:
            self._write(_COUNTED, str(shard + 1).encode())
        self._place.remove(_sums(shard))
        self._place.remove(_products(shard))

    def done(self) -> dict[int, float]:
        """The shards that wait to be counted, and when each was done, in seconds since 1970."""
        counted = self.counted
        left = {_number(name): moment for name, moment in self._place.listed("sums-*.npz").items()}
        return {shard: moment for shard, moment in left.items() if shard >= counted}

    def claims(self) -> list[Claim]:
        """Who computes what."""
        return [Claim(shard, body["worker"], beat) for shard, body, beat in self._found("claim")]

    def failures(self) -> list[Failure]:
        """What couldn't be computed."""
        return [Failure(shard, body["worker"], body["message"]) for shard, body, _ in self._found("failed")]

    @contextmanager
    def claimed(self, shard: int, worker: str) -> Iterator[None]:
        """Tell, as long as this lasts, that `worker` computes a shard."""
        name, data = f"claim-{shard:05d}.json", _json({"worker": worker})
        self._check_wanted()
        self._write(name, data)
        over = Event()

        def beat() -> None:
            while not over.wait(BEAT_S):
                # The build is over, or the place is away: neither is the claim's to mend.
                with suppress(OSError, PlaceAway):
                    self._check_wanted()
                    self._place.touch(name, data)

        beating = Thread(target=beat, name="claim", daemon=True)
        beating.start()
        try:
            yield
        finally:
            over.set()
            beating.join()
            # Without a beat it counts for nothing soon.
            with suppress(OSError, PlaceAway):
                self._place.remove(name)

    def _check_wanted(self) -> None:
        # A store takes what is written into a place that was removed, and keeps it.
        if not self.is_there:
            raise FileNotFoundError(f"{self.location}/{_PLAN}")

    def _write(self, name: str, data: bytes) -> None:
        self._place.write(name, lambda stream: stream.write(data))

    def _found(self, kind: str) -> Iterator[tuple[int, dict[str, Any], float]]:
        for name, moment in self._place.listed(f"{kind}-*.json").items():
            with suppress(FileNotFoundError):
                yield _number(name), json.loads(self._place.read(name)), moment


class Shared:
    """Where the builds of an index leave shards, each in a place of its own: in a directory beside it, or a store.

    In a store two indexes may have the same name. What is there for this one has a name that is drawn, and the
    directory beside the index keeps it: whoever goes on finds it, and nobody takes another's for it.
    """

    def __init__(self, out: Path, url: str | None = None) -> None:
        """
        Args:
            out: the index.
            url: of a store or directory in which it is; None: beside `out`.

        Raises:
            SettingsError: the URL can't be used.
        """
        self._name = out.name
        self._beside = out.with_name(out.name + durable.SHARDS_SUFFIX)
        self._url = None
        if url is not None:
            location = place_at(url).location
            self._url = location if "://" in location else str(Path(location).absolute())

    @property
    def location(self) -> str | None:
        """Where the places of builds are; None while there is none in the store."""
        return str(self._beside) if self._url is None else self._stores().get(self._url)

    def of(self, build: str) -> str:
        """Where one build is to leave its shards."""
        if self.location is None:
            name = f"{self._name}-{secrets.token_hex(4)}{durable.SHARDS_SUFFIX}"
            durable.make_directory(self._beside)
            # Before anything is there: it is found again, whatever becomes of the build.
            durable.write_json(
                self._beside / _STORES, self._stores() | {str(self._url): f"{self._url}/{name}"}
            )
        return f"{self.location}/{build}"

    def builds(self) -> list[Exchange]:
        """Of every build that left something."""
        if self.location is None:
            return []
        return [Exchange(self.of(name)) for name in place_at(self.location).folders()]

    def remove(self, besides: str | None = None) -> None:
        """Remove what builds left, though a late worker may be writing there; all but those of one."""
        if besides is None:
            for location in self._stores().values():
                place_at(location).remove_all()
            place_at(str(self._beside)).remove_all()
            return
        for name in [] if self.location is None else place_at(self.location).folders():
            if name != besides:
                place_at(self.of(name)).remove_all()

    def _stores(self) -> dict[str, str]:
        """Where shards are in stores, by their URLs."""
        try:
            stores: dict[str, str] = json.loads((self._beside / _STORES).read_bytes())
        except FileNotFoundError:
            return {}
        return stores


def forget_shards(shared: Shared, reporter: Reporter) -> None:
    """Remove what builds left of an index that is finished; it is no worse for a store that is away."""
    try:
        shared.remove()
    except (PlaceAway, SettingsError) as error:
        reporter.warn(f"what build workers left stays there: {error}")


def _products(shard: int) -> str:
    return f"shard-{shard:05d}.npz"


def _sums(shard: int) -> str:
    return f"sums-{shard:05d}.npz"


def _number(name: str) -> int:
    return int(PurePosixPath(name).stem.split("-")[1])


def _json(body: dict[str, str]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()
