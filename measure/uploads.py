"""How an index's answers hold for what people upload: pictures from elsewhere, and the model's own as they arrive.

Two questions. Does an answer know the model's own pictures from others (das.references)? And does the ranking of one
of the model's own stay what it was when the picture was re-encoded, resized, cut or mirrored on its way?
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from das.arrivals import ARRIVALS
from das.attribution import Attributor
from das.errors import SettingsError
from das.images import normalise
from das.works import SourceWorks, read_works
from measure.statistics import POINTS

AT_ONCE = 32
SYNTHETIC = 100  # pictures of each kind that is made here
TOP, OVERLAP = 100, 20
NORMAL_95 = 1.96
AS_MADE = "as made"

Told = Callable[[int], None]


@dataclass(frozen=True)
class Uploads:
    """Pictures, each (H, W, 3) uint8, that are asked about; `own` if the index's model made them."""

    name: str
    own: bool
    pixels: list[np.ndarray]
    prompts: list[str | None]


def read_uploads(name: str, folder: Path, *, own: bool) -> Uploads:
    """The pictures of a folder, with the prompts of its metadata.

    Raises:
        SettingsError: there is none.
        ImageRefused: one can't be read.
    """
    works, pixels = read_pictures(folder)
    return Uploads(name, own, pixels, works.table["prompt"].to_pylist())


def read_pictures(folder: Path) -> tuple[SourceWorks, list[np.ndarray]]:
    """A folder's table, and its pictures, each (H, W, 3) uint8; raises like `read_uploads`."""
    works = read_works(folder)
    if not len(works):
        raise SettingsError(f"{folder} holds no pictures.")
    return works, [normalise(works.read(row)).pixels for row in range(len(works))]


def synthetic(side: int, seed: int, count: int = SYNTHETIC) -> list[Uploads]:
    """Pictures that no model of photographs makes: noise, grey noise of any contrast, flat colours, gradients."""
    rng = np.random.default_rng(seed)
    shape = (count, side, side, 3)
    noise = rng.integers(0, 256, shape)
    contrast = rng.uniform(5, 60, (count, 1, 1, 1))
    grey = 128 + contrast * rng.normal(size=shape)
    flat = np.broadcast_to(rng.integers(0, 256, (count, 1, 1, 3)), shape)
    ends, angle = rng.integers(0, 256, (2, count, 1, 1, 3)), rng.uniform(0, np.pi / 2, (count, 1, 1, 1))
    ramp = np.linspace(0, 1, side)
    across, down = ramp[None, None, :, None], ramp[None, :, None, None]
    along = (np.cos(angle) * across + np.sin(angle) * down) / (np.cos(angle) + np.sin(angle))
    gradient = ends[0] + (ends[1] - ends[0]) * along
    kinds = {"noise": noise, "grey noise": grey, "flat colours": flat, "gradients": gradient}
    return [
        Uploads(name, False, list(np.clip(values, 0, 255).astype(np.uint8)), [None] * count)
        for name, values in kinds.items()
    ]


def origin_row(attributor: Attributor, uploads: Uploads, arrival: str = AS_MADE) -> dict[str, Any]:
    """What the index says of the origin of these pictures, and on how many it names a creator on top."""
    verdicts: Counter[str] = Counter()
    names = 0
    creators = {creator for creator in attributor.index.works.creators if creator}
    for start in range(0, len(uploads.pixels), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        answers = attributor.attribute_batch(uploads.pixels[part], top_k=1, prompts=uploads.prompts[part])
        for answer in answers:
            if answer.in_model is None:
                raise SettingsError(f"{attributor.index.id} was built without --references.")
            verdicts[answer.in_model["verdict"]] += 1
            names += any(creator in answer.summary for creator in creators)
    count = len(uploads.pixels)
    wrong = count - verdicts["likely"] if uploads.own else verdicts["likely"]
    low, high = wilson(wrong, count)
    return {
        "set": uploads.name,
        "own": uploads.own,
        "arrival": arrival,
        "count": count,
        **{verdict: verdicts[verdict] for verdict in ("likely", "unsure", "unlikely")},
        "names_a_creator": names,
        "error": POINTS * wrong / count,
        "low": POINTS * low,
        "high": POINTS * high,
    }


def arrived(uploads: Uploads, arrival: str) -> Uploads:
    """The same pictures after what `das.arrivals` calls `arrival`."""
    return Uploads(
        uploads.name, uploads.own, [ARRIVALS[arrival](one) for one in uploads.pixels], uploads.prompts
    )


def robustness_row(
    attributor: Attributor, before: np.ndarray, uploads: Uploads, arrival: str
) -> dict[str, Any]:
    """How the ranking of pictures changes when they arrive in another way.

    Args:
        before: their scores (Q, N) as they were made.
        uploads: the same pictures as they arrive.

    Returns:
        Means over the pictures with 95 % intervals by resampling them: Spearman's correlation of the scores of the
        `TOP` works, the part of the first `OVERLAP` that stay among them, the part whose first work stays first, and
        half the sum of the changes of the creators' shares.
    """
    after = scores_of(attributor, uploads)
    correlations = [_correlation(one, other) for one, other in zip(before, after, strict=True)]
    overlaps = [
        len(np.intersect1d(_first(one, OVERLAP), _first(other, OVERLAP))) / OVERLAP
        for one, other in zip(before, after, strict=True)
    ]
    firsts = [float(one.argmax() == other.argmax()) for one, other in zip(before, after, strict=True)]
    moved = 0.5 * np.abs(_creators(attributor, before) - _creators(attributor, after)).sum(1)
    measures: Mapping[str, Sequence[float] | np.ndarray] = {
        "correlation": correlations,
        "overlap": overlaps,
        "same_first": firsts,
        "shares_moved": moved,
    }
    row: dict[str, Any] = {"set": uploads.name, "arrival": arrival, "count": len(after)}
    for name, values in measures.items():
        low, high = mean_interval(np.asarray(values))
        row |= {name: float(np.mean(values)), f"{name}_low": low, f"{name}_high": high}
    return row


def scores_of(attributor: Attributor, uploads: Uploads) -> np.ndarray:
    """(Q, N) float64, by the index's default method."""
    method = attributor.index.methods[0]
    parts = []
    for start in range(0, len(uploads.pixels), AT_ONCE):
        parts.append(attributor.scores(uploads.pixels[start : start + AT_ONCE], method))
    return np.concatenate(parts)


def measure_uploads(
    attributor: Attributor, sets: Sequence[Uploads], seed: int, tell: Told = lambda _: None
) -> dict[str, Any]:
    """The two tables over `sets` and the synthetic pictures; `tell` is told of every picture that was asked about.

    Raises:
        SettingsError: the index has no references.
    """
    side = min(sets[0].pixels[0].shape[:2])
    origin, robustness = [], []
    for uploads in [*sets, *synthetic(side, seed)]:
        origin.append(origin_row(attributor, uploads))
        tell(len(uploads.pixels))
        if not uploads.own:
            continue
        before = scores_of(attributor, uploads)
        for arrival in ARRIVALS:
            changed = arrived(uploads, arrival)
            origin.append(origin_row(attributor, changed, arrival))
            robustness.append(robustness_row(attributor, before, changed, arrival))
            tell(len(uploads.pixels))
    return {"origin": origin, "robustness": robustness}


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a part, `hits` of `count` (Wilson 1927)."""
    part, z2 = hits / count, NORMAL_95**2
    middle = (part + z2 / (2 * count)) / (1 + z2 / count)
    half = NORMAL_95 * np.sqrt(part * (1 - part) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    # Of none and of all, the interval ends there but for rounding.
    low = 0.0 if hits == 0 else float(middle - half)
    return low, 1.0 if hits == count else float(middle + half)


def mean_interval(values: np.ndarray, draws: int = 1000) -> tuple[float, float]:
    """The 95 % interval of a mean over pictures, by resampling them."""
    chosen = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(values[chosen].mean(1), (0.025, 0.975))
    return float(low), float(high)


def _first(scores: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(-scores, kind="stable")[:count]


def _correlation(before: np.ndarray, after: np.ndarray) -> float:
    """Spearman's, of the scores of the works that came first before."""
    chosen = _first(before, TOP)
    one, other = rankdata(before[chosen]), rankdata(after[chosen])
    return float(np.corrcoef(one, other)[0, 1])


def _creators(attributor: Attributor, scores: np.ndarray) -> np.ndarray:
    """Shares by creator, (Q, C)."""
    names = attributor.index.works.creators
    codes = {name: place for place, name in enumerate(dict.fromkeys(names))}
    member = np.zeros((len(names), len(codes)))
    member[np.arange(len(names)), [codes[name] for name in names]] = 1
    positive = np.maximum(scores, 0)
    shares: np.ndarray = positive @ member / positive.sum(1, keepdims=True)
    return shares
