"""What each sample shows, in a word, and the order in which the page offers them: by rules, not by looks.

The words come from what training again without each photograph changed (`demo.effects`) and from what looks most
like the sample to CLIP; no answer of an index takes part, so that a word can't be made to fit the answers.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from das.config import ClipSpec
from das.durable import write_bytes
from das.errors import DasError
from demo.crops import all_crops
from demo.effects import SampleEffects
from demo.home import CLIP, SAMPLES
from demo.photographs import PHOTOGRAPHS
from demo.samples import TITLES, Sample, read_samples

COPIED = "Copied"
ELSEWHERE = "Looks like one, owes to another"
ONE = "One clear source"
UNCLEAR = "No clear source"

TURNS = (ONE, COPIED, ONE, ELSEWHERE, ONE, UNCLEAR)
"""Whose turn it is on the page, again and again. Copies are nearly half of the samples, and show one thing."""

NOTE = (
    "The words under the pictures are what came out when the model was trained again without each photograph."
    " An answer estimates that from the one model there is, and for a few of these pictures it names another."
)


@dataclass(frozen=True)
class Tile:
    """A sample on the page: the word below it, and the sentence that explains it."""

    sample: Sample
    photograph: str  # whose absence changes the sample most
    word: str
    sentence: str

    def entry(self) -> dict[str, object]:
        """As samples.json has it."""
        return {**asdict(self.sample), "shows": self.word, "about": self.sentence}


def tile(sample: Sample, effects: SampleEffects, look_alike: str) -> Tile:
    """What a sample shows.

    Args:
        look_alike: the photograph that looks most like it.
    """
    first = effects.first(sample.file)
    titles = {photograph.name: photograph.title for photograph in PHOTOGRAPHS}
    looks, owes = (f"“{titles[name]}”" for name in (look_alike, first))
    if sample.reproduction:
        return Tile(sample, first, COPIED, f"Nearly the same picture as a detail of {owes}.")
    if not effects.is_significant(sample.file):
        sentence = (
            f"Looks most like {looks}; leaving out no photograph changed it clearly more than any other."
        )
        return Tile(sample, first, UNCLEAR, sentence)
    if look_alike != first:
        return Tile(sample, first, ELSEWHERE, f"Looks most like {looks}, but owes most to {owes}.")
    return Tile(sample, first, ONE, f"Looks most like {looks}, and owes most to it.")


def in_order(tiles: Sequence[Tile]) -> list[Tile]:
    """Words take turns; of a word's samples comes first whose photograph was shown least with it, then at all.

    Among equals it is the smallest seed.
    """
    left = sorted(tiles, key=lambda one: one.sample.seed)
    shown: Counter[str] = Counter()
    shown_with: Counter[tuple[str, str]] = Counter()
    ordered: list[Tile] = []
    while left:
        for word in TURNS:
            waiting = [one for one in left if one.word == word]
            if waiting:
                chosen = min(
                    waiting, key=lambda one: (shown_with[one.word, one.photograph], shown[one.photograph])
                )
                left.remove(chosen)
                shown[chosen.photograph] += 1
                shown_with[chosen.word, chosen.photograph] += 1
                ordered.append(chosen)
    return ordered


def look_alikes(folder: Path, samples: Sequence[Sample]) -> dict[str, str]:
    """The photograph whose crop looks most like each sample to the demo's CLIP, by the sample's file."""
    from das.screening import Embedder

    clip = Embedder.load(ClipSpec(directory=CLIP))
    crops = all_crops()
    works = clip.embed([crop.pixels for crop in crops])
    asked = clip.embed([_pixels(folder / sample.file) for sample in samples])
    nearest = (asked @ works.T).argmax(1)
    return {sample.file: crops[row].photograph.name for sample, row in zip(samples, nearest, strict=True)}


def tiles_of(samples: Sequence[Sample], effects: SampleEffects, looks: Mapping[str, str]) -> list[Tile]:
    """The tiles in the page's order.

    Raises:
        DasError: nothing is known of a sample.
    """
    unknown = [sample.file for sample in samples if sample.file not in effects.samples]
    if unknown:
        raise DasError(
            f"the effects of leaving photographs out aren't known for {len(unknown)} samples such as {unknown[0]}:"
            " make them with `das demo truth`"
        )
    return in_order([tile(sample, effects, looks[sample.file]) for sample in samples])


def write_tiles(effects: SampleEffects, folder: Path = SAMPLES) -> list[Tile]:
    """Write into a folder's samples.json what each sample shows, in the page's order."""
    samples = read_samples(folder)
    tiles = tiles_of(samples, effects, look_alikes(folder, samples))
    kept = {"note": NOTE, "samples": [one.entry() for one in tiles]}
    text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
    write_bytes(folder / TITLES, text.encode())
    return tiles


def _pixels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))
