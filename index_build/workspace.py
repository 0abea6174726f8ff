"""The directory of an unfinished build, `OUT.building`: what is done, and how a killed build finds it again.

After every shard of works its products are written, then one checkpoint with the kernel sums and the number of
shards in them replaces the last. Whatever moment a build dies at, the checkpoint and the shards it counts are
whole, and going on from there gives the same bits.
"""

import json
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from das import durable
from das.errors import BuildError
from das.manifest import MANIFEST_NAME, canonical_json, list_files
from index_build.inputs import differences

_SCRATCH = "scratch"
_STATE = "build.json"
_TOKEN = "token"


@dataclass(frozen=True, eq=False)
class ShardProducts:
    """What one shard of source rows gave.

    Attributes:
        rows: source rows that are in, (n,) int64.
        averages: for each feature set `f̄` (n, k) float32, the mean of the features over timesteps.
        replicates: for each feature set (G, n, k) float16, the mean over each replicate's timesteps
            (`das.intervals.replicates_of`); empty where nothing is measured with them.
        residual_rms: (n, T) float32.
        embeddings: (n, e) float32, of unit norm.
        embedding_norms: their norms before, (n,) float32.
        pictures: `x_0` (n, d) float32, or None where no method compares pixels.
        hashes: PDQ hashes with their quality, (n, 33) uint8.
        tdm: what each file says of text and data mining, (n,) uint8, places in `das.rights.values.CODES`.
        sscd: SSCD embeddings of unit norm, (n, e) float32, or None where its file wasn't given.
        thumbnails: encoded thumbnails.
        refused: works that aren't in, as plain dictionaries.
    """

    rows: np.ndarray
    averages: dict[str, np.ndarray]
    replicates: dict[str, np.ndarray]
    residual_rms: np.ndarray
    embeddings: np.ndarray
    embedding_norms: np.ndarray
    pictures: np.ndarray | None
    hashes: np.ndarray
    tdm: np.ndarray
    sscd: np.ndarray | None
    thumbnails: list[bytes]
    refused: list[dict[str, Any]]


class StoredShard:
    """A committed shard: ShardProducts on disk, read piece by piece when asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows = self._read("rows")
        """Source rows that are in, (n,) int64."""
        self.thumbnail_sizes = self._read("thumbnail_sizes")
        """Bytes of each thumbnail, (n,) int64."""

    def __len__(self) -> int:
        return len(self.rows)

    def averages(self, features: str) -> np.ndarray:
        """`f̄` (n, k) float32 of a feature set."""
        return self._read(f"averages.{features}")

    def replicates(self, features: str) -> np.ndarray:
        """(G, n, k) float16 of a feature set."""
        return self._read(f"replicates.{features}")

    @property
    def residual_rms(self) -> np.ndarray:
        """(n, T) float32."""
        return self._read("residual_rms")

    @property
    def embeddings(self) -> np.ndarray:
        """(n, e) float32."""
        return self._read("embeddings")

    @property
    def embedding_norms(self) -> np.ndarray:
        """(n,) float32."""
        return self._read("embedding_norms")

    @property
    def pictures(self) -> np.ndarray:
        """`x_0` (n, d) float16."""
        return self._read("pictures")

    @property
    def hashes(self) -> np.ndarray:
        """(n, 33) uint8."""
        return self._read("hashes")

    @property
    def tdm(self) -> np.ndarray:
        """(n,) uint8."""
        return self._read("tdm")

    @property
    def sscd(self) -> np.ndarray:
        """(n, e) float16."""
        return self._read("sscd")

    @property
    def thumbnails(self) -> bytes:
        """All thumbnails, end to end."""
        return self._read("thumbnails").tobytes()

    @property
    def refused(self) -> list[dict[str, Any]]:
        """Works that aren't in."""
        found: list[dict[str, Any]] = json.loads(self._read("refused").tobytes())
        return found

    def _read(self, name: str) -> np.ndarray:
        with np.load(self._path, allow_pickle=False) as pieces:
            if name not in pieces:
                raise BuildError(
                    f"{self._path} has no {name}: the build was begun by another version of das. Delete"
                    f" {self._path.parent.parent} and run the same command again."
                )
            found: np.ndarray = pieces[name]
            return found


class Workspace:
    """An unfinished build on disk. `Workspace.open` begins one or finds it again."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = building_path(out)

    @classmethod
    def open(cls, out: Path, identity: dict[str, Any]) -> "Workspace":
        """Begin or resume; raises BuildError naming the options that differ from those it was begun with."""
        workspace = cls(out)
        state = workspace.path / _STATE
        if state.is_file():
            different = differences(identity, json.loads(state.read_bytes()))
            if different and workspace._is_begun:
                raise BuildError(
                    f"{workspace.path} holds an unfinished build with other options: {'; '.join(different)}. "
                    "Run it with those options to go on, delete it, or choose another --out."
                )
            if different:
                # Stopped before anything was computed, as by a work that is mended since.
                workspace.discard()
        elif workspace.path.exists() and not all(
            durable.is_partial(entry.name) for entry in workspace.path.iterdir()
        ):
            raise BuildError(f"{workspace.path} exists and isn't an unfinished build; move it away.")
        durable.make_directory(workspace.path)
        durable.remove_partials(workspace.path)
        durable.write_bytes(state, canonical_json(identity))
        return workspace

    def discard(self) -> None:
        """Remove it, where what it holds can lead to nothing."""
        shutil.rmtree(self.path, ignore_errors=True)

    def token(self) -> str:
        """What tells this unfinished build from any other, also from one of the same place and options."""
        path = self.path / _SCRATCH / _TOKEN
        if not path.is_file():
            durable.write_bytes(path, secrets.token_hex(8).encode())
        return path.read_text()

    @property
    def shards_done(self) -> int:
        """Shards whose products and kernel sums are on disk."""
        if not self._checkpoint.is_file():
            return 0
        with np.load(self._checkpoint, allow_pickle=False) as checkpoint:
            return int(checkpoint["shards_done"])

    def kernel_sums(self) -> dict[str, np.ndarray]:
        """The kernel sums over the shards done, by name, (k, k) float64; empty at the beginning."""
        if not self._checkpoint.is_file():
            return {}
        with np.load(self._checkpoint, allow_pickle=False) as checkpoint:
            return {name: checkpoint[name] for name in checkpoint.files if name != "shards_done"}

    def commit(self, shard: int, products: ShardProducts, sums: dict[str, np.ndarray]) -> None:
        """Keep a shard's products, then the kernel sums that include it."""
        durable.write_file(self._shard(shard), lambda stream: save_products(stream, products))
        self._count(shard, sums)

    def take(self, shard: int, bring: Callable[[Path], bool], sums: dict[str, np.ndarray]) -> bool:
        """Keep a shard's products that somebody else wrote (`save_products`), as `commit` does.

        False if they aren't there, and neither here, where a build may have moved them that was killed before it
        counted them.

        Args:
            bring: brings the file to a path; False if it isn't there.
        """
        if not bring(self._shard(shard)) and not self._shard(shard).exists():
            return False
        self._count(shard, sums)
        return True

    def _count(self, shard: int, sums: dict[str, np.ndarray]) -> None:
        named: dict[str, Any] = {"shards_done": np.int64(shard + 1), **sums}
        durable.write_file(self._checkpoint, lambda stream: np.savez(stream, **named))

    def ended(self, shard: int) -> float | None:
        """When a shard ended, in seconds since 1970; None if it isn't here."""
        try:
            return self._shard(shard).stat().st_mtime
        except FileNotFoundError:
            return None

    def shards(self) -> list[StoredShard]:
        """Every committed shard, in order."""
        return [StoredShard(self._shard(shard)) for shard in range(self.shards_done)]

    def check_strict(self, first: int = 0) -> None:
        """Raise BuildError for a work that couldn't be used, in the committed shards from `first` on.

        Whoever computed these may have passed it over.
        """
        for shard in range(first, self.shards_done):
            for refused in StoredShard(self._shard(shard)).refused:
                raise BuildError(
                    f"{refused['file']} can't be used ({refused['code']}): {refused['message']} (--strict is on, and"
                    f" {self.path} was begun without it: go on without it, or mend the work and delete that"
                    " directory)"
                )

    def is_product(self, name: str) -> bool:
        """Whether a file of the directory, by its relative name, belongs to the finished index."""
        own = name == _STATE or name.startswith(f"{_SCRATCH}/")
        return not own and name != MANIFEST_NAME

    @property
    def _is_begun(self) -> bool:
        """Whether it holds anything that a build computed."""
        return self.shards_done > 0 or any(map(self.is_product, list_files(self.path)))

    def publish(self) -> None:
        """Drop what only the build needed and give the finished directory its name."""
        shutil.rmtree(self.path / _SCRATCH, ignore_errors=True)
        (self.path / _STATE).unlink(missing_ok=True)
        durable.remove_partials(self.path)
        durable.sync(self.path)
        durable.publish(self.path, self.out)

    @property
    def references(self) -> Path:
        """Where pictures that the model makes wait until they are measured."""
        return self.path / _SCRATCH / "references"

    @property
    def _checkpoint(self) -> Path:
        return self.path / _SCRATCH / "checkpoint.npz"

    def _shard(self, shard: int) -> Path:
        return self.path / _SCRATCH / f"shard-{shard:05d}.npz"


def building_path(out: Path) -> Path:
    """Where a build works until it is finished."""
    return out.with_name(out.name + durable.BUILDING_SUFFIX)


def save_products(stream: IO[bytes], products: ShardProducts) -> None:
    """Write what a shard gave, as `StoredShard` reads it."""
    pieces: dict[str, Any] = {
        "rows": products.rows,
        "residual_rms": products.residual_rms,
        "embeddings": products.embeddings,
        "embedding_norms": products.embedding_norms,
        "hashes": products.hashes,
        "tdm": products.tdm,
        "thumbnail_sizes": np.array([len(thumbnail) for thumbnail in products.thumbnails], np.int64),
        "thumbnails": np.frombuffer(b"".join(products.thumbnails), np.uint8),
        "refused": np.frombuffer(canonical_json(products.refused), np.uint8),
    }
    if products.sscd is not None:
        pieces["sscd"] = products.sscd.astype(np.float16)
    if products.pictures is not None:
        pieces["pictures"] = products.pictures.astype(np.float16)
    pieces |= {f"averages.{features}": averages for features, averages in products.averages.items()}
    pieces |= {f"replicates.{features}": values for features, values in products.replicates.items()}
    np.savez(stream, **pieces)
