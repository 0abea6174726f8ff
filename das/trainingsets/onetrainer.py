"""OneTrainer's concepts (JSON): folders with where their prompts come from and how often they are repeated."""

import math
import stat
from fractions import Fraction
from pathlib import Path, PurePosixPath

from das.errors import WorksError
from das.folder import kind_at
from das.trainingsets.captions import Caption, beside, read_caption
from das.trainingsets.collection import REGULARISATION, Collection, ReadOptions, SourceWorks, Work
from das.trainingsets.concepts import look_into, open_folder, work_of
from das.trainingsets.documents import Section, read_document

_SUFFIXES = (".bmp", ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".avif")
_OTHER_POSTFIXES = ("-masklabel", "-condlabel")
_FINEST = 1000


def read_onetrainer(path: Path, options: ReadOptions) -> SourceWorks:
    """Read a list of concepts, or a configuration that has one; raises WorksError where it can't be understood."""
    found = read_document(path)
    whole = Section({"concepts": found} if isinstance(found, list) else found, str(path))
    into = Collection(Path(path.parent.absolute()), "onetrainer")
    if not whole.has("concepts"):
        raise WorksError(f"{path} has no list of concepts; name the file that concept_file_name in it says.")
    shares: list[tuple[list[Work], Fraction]] = []
    for concept in whole.sections("concepts"):
        name = concept.file_name("path") or ""
        kind = (
            "VALIDATION" if concept.get("validation_concept", bool) else concept.get("type", str, "STANDARD")
        )
        if not concept.get("enabled", bool, True):
            into.leave_out(name, "not-enabled", f"{concept.place} isn't enabled")
        elif kind == "VALIDATION":
            into.leave_out(name, "validation", f"{concept.place} is for validation and isn't trained on")
        else:
            works = _take(concept, kind == "PRIOR_PREDICTION", into, options)
            shares.append((works, _repeats(concept, len(works))))
    whole_by = math.lcm(*(repeats.denominator for works, repeats in shares if works))
    if whole_by > _FINEST:
        raise WorksError(
            f"the balancing of {path} gives repeats that no common number makes whole; write metadata.csv with a"
            " column repeats instead."
        )
    for works, repeats in shares:
        for work in works:
            work.row["repeats"] = int(repeats * whole_by)
        into.works += works
    if whole_by > 1:
        message = f"balancing isn't whole; repeats are those of {whole_by} epochs"
        into.remark(str(path), "repeats-of-epochs", message)
    into.merge_repeated()
    return into.finish()


def _repeats(concept: Section, count: int) -> Fraction:
    balancing = concept.get("balancing", (int, float), concept.get("repeats", (int, float), 1))
    if not math.isfinite(balancing) or balancing <= 0:
        raise WorksError(f"{concept.place} has balancing {balancing}; it is a number above 0.")
    exact = Fraction(balancing).limit_denominator(_FINEST)
    if not exact:
        raise WorksError(f"{concept.place} has balancing {balancing}, less than a thousandth of an epoch.")
    if concept.get("balancing_strategy", str, "REPEATS") == "SAMPLES":
        return exact / max(1, count)
    return exact


def _take(concept: Section, prior: bool, into: Collection, options: ReadOptions) -> list[Work]:
    said = concept.file_name("path")
    if not said:
        raise WorksError(f"{concept.place} has no path.")
    path = open_folder(said, concept.place, into.root, options)
    deep = concept.get("include_subdirectories", bool, False)
    found = look_into(path, _SUFFIXES, into, options, deep=deep)
    text = Section(concept.get("text", dict, {}), f"{concept.place}, text")
    source = text.get("prompt_source", str, "sample")
    shared: Caption | None = None
    if source == "concept":
        named = text.file_name("prompt_path") or ""
        shared = read_caption(
            into.root / named if kind_at(into.root / named) == stat.S_IFREG else Path(named)
        )
    files = set(found.folder.files)
    works, drawn = [], 0
    for name in found.names:
        stem = PurePosixPath(name).stem
        work = work_of(path / name, into)
        if stem.endswith(_OTHER_POSTFIXES):
            into.leave_out(work.file, "mask", "it is a mask or a condition of another picture")
            continue
        caption = shared
        if source == "filename":
            work.offer(stem, "the file's name")
        elif source != "concept" and beside(name, ".txt") in files:
            caption = read_caption(path / beside(name, ".txt"))
        if caption is not None:
            work.offer(caption.lines[0] if caption.lines else "", "prompt_path" if shared else ".txt files")
            drawn += len(caption.lines) > 1
        if prior:
            work.row["group"] = REGULARISATION
        elif options.creator_from_folder:
            work.suggest("creator", PurePosixPath(name).parent.name or path.name)
        works.append(work)
    if drawn:
        message = f"{drawn:,} works have several prompts, of which one is drawn each time; the first is taken"
        into.remark(concept.place, "random-caption", message)
    return works
