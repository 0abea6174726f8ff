"""An index of as many works as one likes, made of a small real one: to measure what size does, not whom it names.

Every work of it is two real works mixed (measure.mixing), times √s. With s = n / N the sum of leverages stays that of
the real index, as it would if N works were of the same kinds.
Model, kernels, timesteps and queries are the real ones.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
from safetensors import safe_open
from safetensors.numpy import save_file

from das.card import card_of
from das.durable import write_bytes, write_directory
from das.errors import SettingsError
from das.index import (
    CARD_NAME,
    HASHES_NAME,
    KERNEL_NAME,
    PLACES_NAME,
    REFERENCES_NAME,
    REPORT_NAME,
    WORKS_NAME,
    AttributionIndex,
    feature_name,
    scale_key,
    thumbnail_name,
)
from das.lookups import write_table
from das.manifest import (
    MANIFEST_NAME,
    Manifest,
    canonical_json,
    content_digest,
    list_files,
    manifest_bytes,
    record_file,
)
from das.works import Works
from measure.mixing import mixture

CREATORS_OF = 200
"""Works of one creator."""

_PROMPTS = ("a photograph of", "an oil painting of", "a pencil drawing of", "a poster with")


def enlarge(like: AttributionIndex, works: int, dtype: str, out: Path, seed: int = 0) -> None:
    """Write an index of `works` works made of those of `like`, with features of `dtype`, at `out`.

    Raises:
        SettingsError: it keeps pixels, or has fewer works than two.
    """
    if like.manifest.config.keeps_pictures or len(like) < 2:
        raise SettingsError(f"{like.id} can't be enlarged: it keeps the works' pixels, or has a single work.")
    write_directory(out, lambda path: _Enlarged(like, works, dtype, seed, path).write())


class _Enlarged:
    def __init__(self, like: AttributionIndex, works: int, dtype: str, seed: int, path: Path) -> None:
        self.like = like
        self.works = works
        self.dtype = dtype
        self.path = path
        self.rng = np.random.default_rng(seed)
        self.mixture = mixture(len(like), works, seed)
        self.first = self.mixture.main
        self.scale = np.float32(np.sqrt(len(like) / works))
        size = like.manifest.config.shard_size
        self.shard_rows = tuple(min(size, works - start) for start in range(0, works, size))

    def write(self) -> None:
        manifest = self._manifest()
        for folder in ("thumbnails", *(f"features/{name}" for name in manifest.features.sets)):
            (self.path / folder).mkdir(parents=True)
        self._write_works()
        tensors = self._numbers()
        for name in manifest.features.sets:
            tensors |= self._write_features(name)
        save_file(tensors, self.path / KERNEL_NAME)
        self._write_beside()
        write_bytes(self.path / REPORT_NAME, canonical_json({}))
        write_bytes(self.path / CARD_NAME, card_of(manifest, Works.open(self.path / WORKS_NAME)).encode())
        files = {name: record_file(self.path / name) for name in list_files(self.path)}
        digest = content_digest(manifest.config, [], "", "", manifest.kernels, files)
        manifest = manifest.model_copy(update={"files": files, "content_digest": digest})
        write_bytes(self.path / MANIFEST_NAME, manifest_bytes(manifest))

    def _manifest(self) -> Manifest:
        like = self.like.manifest
        update = {"count": self.works, "source_rows": self.works, "trained": self.works}
        # `‖Σ w wᵀ‖² / N²` of a sum that stays what it is.
        shrunk = (len(self.like) / self.works) ** 2
        kernels = tuple(
            one
            if one.mean_square is None
            else one.model_copy(update={"mean_square": one.mean_square * shrunk})
            for one in like.kernels
        )
        return like.model_copy(
            update={
                "config": like.config.model_copy(update={"feature_dtype": self.dtype}),
                "works": like.works.model_copy(update=update),
                "kernels": kernels,
                "features": like.features.model_copy(
                    update={"dtype": self.dtype, "shard_rows": self.shard_rows}
                ),
                "screening": None,
                "copies": None if like.copies is None else like.copies.model_copy(update={"sscd": None}),
            }
        )

    def _numbers(self) -> dict[str, np.ndarray]:
        """kernel.safetensors: what is of a work is that of the first of the two, factors are as they were."""
        found = {}
        with safe_open(self.like.path / KERNEL_NAME, framework="numpy") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a dict
                values = tensors.get_tensor(name)
                of_works = values.shape[:1] == (len(self.like),) and not name.endswith(
                    (".factor", ".whitening")
                )
                if not of_works:
                    found[name] = values
                elif name.endswith(".leverage"):
                    found[name] = values[self.first] * float(self.scale) ** 2
                elif not name.endswith(".scale"):
                    found[name] = values[self.first]
        found["repeats"] = np.ones(self.works, np.int64)
        return found

    def _write_features(self, name: str) -> dict[str, np.ndarray]:
        real = np.asarray(self.like.features(name)).astype(np.float32) * self.scale
        scales, start = [], 0
        for shard, rows in enumerate(self.shard_rows):
            mixed = self.mixture[start : start + rows].of(real)
            if self.dtype == "int8":
                scale = np.abs(mixed).max(1) / np.iinfo(np.int8).max
                scales.append(scale.astype(np.float32))
                mixed = np.rint(mixed / scale[:, None])
            np.save(self.path / feature_name(name, shard), mixed.astype(self.dtype))
            start += rows
        return {scale_key(name): np.concatenate(scales)} if scales else {}

    def _write_works(self) -> None:
        count = self.works
        digests = [f"{number * 2654435761 % 2**32:08x}{number:056x}" for number in range(count)]
        titles = [f"Work no. {number}" for number in range(count)]
        creators = [
            f"Creator {code:06d}" for code in self.rng.integers(0, max(1, count // CREATORS_OF), count)
        ]
        kinds = self.rng.integers(0, len(_PROMPTS), count)
        prompts = [
            f"{_PROMPTS[kind]} subject {number} at dusk, seen from the other side of the river"
            for number, kind in enumerate(kinds)
        ]
        nothing = pa.nulls(count, pa.string())
        table = pa.table(
            {
                "id": [f"w_{digest[:16]}" for digest in digests],
                "file": [f"folder-{number // 1000:05d}/work-{number:09d}.png" for number in range(count)],
                "digest": digests,
                "title": titles,
                "creator": creators,
                "rights_holder": nothing,
                "licence": pa.array(["CC BY 4.0"] * count),
                "source_url": [f"https://example.org/works/{number}" for number in range(count)],
                "prompt": prompts,
                "group": nothing,
                "repeats": np.ones(count, np.int64),
            }
        )
        write_table(self.path / WORKS_NAME, table)

    def _write_beside(self) -> None:
        """Thumbnails, hashes and references: those of the real works, named again and again."""
        places = np.asarray(self.like.thumbnail_places)
        for shard in np.unique(places[:, 0]):
            name = thumbnail_name(int(shard))
            write_bytes(self.path / name, (self.like.path / name).read_bytes())
        np.save(self.path / PLACES_NAME, places[self.first])
        if self.like.hashes is not None:
            np.save(self.path / HASHES_NAME, np.asarray(self.like.hashes)[self.first])
        if self.like.manifest.references is not None:
            write_bytes(self.path / REFERENCES_NAME, (self.like.path / REFERENCES_NAME).read_bytes())
