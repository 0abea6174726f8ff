"""Which convention a source follows, and the reader of each."""

from pathlib import Path

from das.errors import WorksError
from das.folder import Folder
from das.trainingsets.collection import ReadOptions, SourceWorks, look_through
from das.trainingsets.imagefolder import is_picture, kohya_folders, read_folder
from das.trainingsets.parquet import read_parquet, read_parquet_folder

FORMATS = ("auto", "imagefolder", "kohya", "kohya-toml", "ai-toolkit", "onetrainer", "parquet", "webdataset")


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
    if source.is_file() and source.suffix == ".parquet":
        return read_parquet(source, options)
    raise WorksError(f"{source} is neither a folder of images nor a .parquet file of paths.")


def _read_directory(source: Path, format: str, options: ReadOptions) -> SourceWorks:
    folder: Folder = look_through(source, options)
    pictures = any(is_picture(name) for name in folder.files)
    tables = [name for name in folder.files if name.endswith(".parquet")]
    if format == "parquet" or (format == "auto" and tables and not pictures):
        return read_parquet_folder(folder, tables, options)
    kohya = kohya_folders(folder, certain=format == "kohya") if format in ("auto", "kohya") else {}
    if format == "kohya" and not kohya:
        raise WorksError(
            f"{source} has no folder of pictures whose name is a number, _ and words, such as 10_sks cat."
        )
    return read_folder(folder, options, kohya=kohya)
