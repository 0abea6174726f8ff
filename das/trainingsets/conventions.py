"""Which convention a source follows, and the reader of each."""

from pathlib import Path

from das.errors import WorksError
from das.folder import Folder
from das.trainingsets.ai_toolkit import read_ai_toolkit
from das.trainingsets.collection import ReadOptions, SourceWorks, look_through
from das.trainingsets.documents import read_document
from das.trainingsets.imagefolder import is_picture, kohya_folders, read_folder
from das.trainingsets.kohya_toml import read_kohya_toml
from das.trainingsets.onetrainer import read_onetrainer
from das.trainingsets.parquet import read_parquet, read_parquet_folder
from das.trainingsets.webdataset import read_webdataset

FORMATS = ("auto", "imagefolder", "kohya", "kohya-toml", "ai-toolkit", "onetrainer", "parquet", "webdataset")
_BY_SUFFIX = {
    ".parquet": "parquet",
    ".tar": "webdataset",
    ".toml": "kohya-toml",
    ".yaml": "ai-toolkit",
    ".yml": "ai-toolkit",
}
_CONFIGURATIONS = {
    "kohya-toml": read_kohya_toml,
    "ai-toolkit": read_ai_toolkit,
    "onetrainer": read_onetrainer,
}


def read(source: Path, format: str, options: ReadOptions) -> SourceWorks:
    """Read a source by a convention, or by the one that it follows.

    Raises:
        WorksError: it isn't there, follows none, or not the one that was said.
    """
    if source.is_dir():
        return _read_directory(source, format, options)
    if not source.exists():
        raise WorksError(
            f"the works {source} don't exist; name a folder of images or a .parquet file of paths."
        )
    said = _of_file(source) if format == "auto" else format
    if said == "parquet":
        return read_parquet(source, options)
    if said == "webdataset":
        return read_webdataset(source.parent, [source.name], options)
    if said in _CONFIGURATIONS:
        return _CONFIGURATIONS[said](source, options)
    raise WorksError(
        f"{source} is neither a folder of images nor a .parquet file of paths, nor a training tool's .toml, .yaml or"
        " .json, nor a .tar of pictures."
    )


def _of_file(source: Path) -> str | None:
    """The convention of a file, by its ending; of JSON by what is in it."""
    if source.suffix == ".json":
        found = read_document(source)
        return "kohya-toml" if isinstance(found, dict) and "datasets" in found else "onetrainer"
    return _BY_SUFFIX.get(source.suffix.lower())


def _read_directory(source: Path, format: str, options: ReadOptions) -> SourceWorks:
    folder: Folder = look_through(source, options)
    pictures = any(is_picture(name) for name in folder.files)
    tables = [name for name in folder.files if name.endswith(".parquet")]
    if format == "parquet" or (format == "auto" and tables and not pictures):
        return read_parquet_folder(folder, tables, options)
    tars = [name for name in folder.files if name.endswith(".tar")]
    if format == "webdataset" or (format == "auto" and tars and not pictures):
        return read_webdataset(source, tars, options, folder.left_out)
    if format in _CONFIGURATIONS:
        raise WorksError(f"{source} is a folder; for {format} name the configuration file.")
    kohya = kohya_folders(folder, certain=format == "kohya") if format in ("auto", "kohya") else {}
    if format == "kohya" and not kohya:
        raise WorksError(
            f"{source} has no folder of pictures whose name is a number, _ and words, such as 10_sks cat."
        )
    return read_folder(folder, options, kohya=kohya)
