"""Between what `das` scores in sections and what workers send each other: queries there, tallies back."""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from das.sections import Section, SectionTally, packed, packed_bytes, put_together, unpacked
from das.tally import Tally
from jobs.searches import SectionTask
from worker.child import Progress
from worker.together import Lead, Search

if TYPE_CHECKING:
    from das.attribution import Attributor, Averages, Spread

_BEST = "best"
_SET = "set/"


def spread(attributor: "Attributor", lead: Lead, progress: Progress) -> "Spread":
    """For `Attributor.attribute_batch`: a search that is led by this worker."""
    index = attributor.index

    def alive() -> None:
        progress("scored", 0, 1)

    def searched(averages: "Averages", method: str, best: Sequence[int]) -> list[Tally] | None:
        def compute(section: Section) -> list[SectionTally]:
            return attributor.section_tallies(averages, method, section, best, alive)

        def read(section: Section, result: bytes) -> list[SectionTally]:
            tallies = unpacked(index.works, section, result)
            if [one.works for one in tallies] != [len(section)] * len(best):
                raise ValueError(f"it isn't of {len(best)} queries and {len(section):,} works")
            return tallies

        search = Search(
            index.id,
            method,
            lambda: _asked(averages, best),
            index.manifest.features.shard_rows,
            lambda section: packed_bytes(index.works, section, best),
            compute,
            read,
            alive,
        )
        found = lead(search)
        if found is None:
            return None
        return [
            put_together(index.works, [tallies[query] for tallies in found], count)
            for query, count in enumerate(best)
        ]

    return searched


def score(attributor: "Attributor", task: SectionTask, alive: Callable[[], None]) -> bytes:
    """What is found in a section that another worker asks for, as long as `alive` raises nothing."""
    import torch

    with np.load(io.BytesIO(task.question), allow_pickle=False) as asked:
        best = [int(count) for count in asked[_BEST]]
        averages = {
            name.removeprefix(_SET): torch.from_numpy(asked[name]).to(attributor.device)
            for name in asked.files
            if name.startswith(_SET)
        }
    section = Section(task.begin, task.end)
    tallies = attributor.section_tallies(averages, task.method, section, best, alive)
    return packed(attributor.index.works, section, tallies)


def _asked(averages: "Averages", best: Sequence[int]) -> bytes:
    """Queries `averages` (B, k), and how many works each wants, as the bytes of an .npz."""
    stream = io.BytesIO()
    arrays = {_SET + name: values.cpu().numpy() for name, values in averages.items()}
    np.savez(stream, **arrays, **{_BEST: np.array(best)})  # type: ignore[arg-type]
    return stream.getvalue()
