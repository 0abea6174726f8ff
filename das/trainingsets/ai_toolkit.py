"""ai-toolkit's job configurations (YAML): the data sets of its processes."""

from pathlib import Path, PurePosixPath

from das.errors import WorksError
from das.trainingsets.captions import beside, read_caption
from das.trainingsets.collection import REGULARISATION, Collection, ReadOptions, SourceWorks
from das.trainingsets.concepts import look_into, open_folder, work_of
from das.trainingsets.documents import Section, read_document

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_RANDOM = ("shuffle_tokens", "token_dropout_rate", "random_triggers")


def read_ai_toolkit(path: Path, options: ReadOptions) -> SourceWorks:
    """Read a job, or a file with `datasets` alone; raises WorksError where it can't be understood."""
    whole = Section(read_document(path), str(path))
    into = Collection(Path(path.parent.absolute()), "ai-toolkit")
    processes = [whole]
    if whole.has("config"):
        processes = Section(whole.get("config", dict), f"{path}, config").sections("process")
    sets = [(one, process) for process in processes for one in process.sections("datasets")]
    if not sets:
        raise WorksError(f"{path} has no datasets, neither by itself nor under config, process.")
    for one, process in sets:
        _take(one, one.get("trigger_word", str) or process.get("trigger_word", str), into, options)
    into.merge_repeated()
    return into.finish()


def _take(section: Section, trigger: str | None, into: Collection, options: ReadOptions) -> None:
    said = section.file_name("dataset_path") or section.file_name("folder_path")
    if not said:
        raise WorksError(f"{section.place} has no folder_path.")
    path = open_folder(said, section.place, into.root, options)
    concept = look_into(path, _SUFFIXES, into, options, deep=True)
    files = set(concept.folder.files)
    ending = section.file_name("caption_ext", ".txt") or ".txt"
    ending = ending if ending.startswith(".") else f".{ending}"
    default = section.get("default_caption", str)
    regularisation = section.get("is_reg", bool, False)
    resolutions = section.get("resolution", (int, list), 512)
    # A data set is there once for each of its resolutions.
    times = len(resolutions) if isinstance(resolutions, list) else 1
    for name in concept.names:
        if PurePosixPath(name).parent.name == "_controls":
            into.leave_out(name, "control", "it is a control picture")
            continue
        work = work_of(path / name, into)
        whole = read_caption(path / beside(name, ending)).whole if beside(name, ending) in files else ""
        label = f"{ending} files" if whole else "default_caption" if default else "the trigger word"
        work.offer(_with_trigger(whole or default or "", trigger, add=not regularisation), label)
        work.row["repeats"] = max(1, section.get("num_repeats", int, 1)) * max(1, times)
        if regularisation:
            work.row["group"] = REGULARISATION
        elif options.creator_from_folder:
            work.suggest("creator", PurePosixPath(name).parent.name or path.name)
        into.works.append(work)
    if times > 1:
        message = f"it is trained on in {times} resolutions, so its repeats are {times} times as many"
        into.remark(section.place, "resolutions", message)
    for name in _RANDOM:
        if section.get(name, (bool, int, float, list, str)):
            message = f"{name} changes captions at random; they are taken as they are written"
            into.remark(section.place, "random-caption", message)


def _with_trigger(caption: str, trigger: str | None, *, add: bool) -> str:
    """A caption with the trigger word where it says `[trigger]` or `[name]`, or in front where it says neither."""
    word = trigger or ""
    caption = caption.replace("[name]", word).replace("[trigger]", word)
    return f"{word} {caption}".strip() if word.strip() and add and word not in caption else caption.strip()
