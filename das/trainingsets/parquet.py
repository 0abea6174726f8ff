"""Tables: parquets of paths, and Hugging Face's with the pictures inside, one file or a folder of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from das.errors import WorksError
from das.folder import Folder, Remark
from das.metadata import check_columns
from das.trainingsets.collection import Collection, ReadOptions, SourceWorks, Work
from das.trainingsets.imagefolder import NamedRows, inside, nothing_there
from das.trainingsets.pictures import MAX_PICTURE_BYTES, FilePlace, ParquetPictures, ParquetPlace
from das.trainingsets.probe import check_parquets
from das.trainingsets.spelling import column_name, spelled

_PATH_COLUMNS = ("file_name", "path")
_IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "jpeg", "png", "webp")
_MAX_TEXT_BYTES = 2**30
_ROWS_AT_ONCE = 1024
_MAX_LISTS = 3
"""Within one another, around a feature."""


def read_parquet(source: Path, options: ReadOptions) -> SourceWorks:
    """Read one parquet.

    Raises:
        WorksError: it can't be read, or says neither where pictures are nor holds them.
    """
    check_parquets([source])
    with _readable(source):
        file = pq.ParquetFile(source)
        names = [column_name(name) for name in file.schema_arrow.names]
        check_columns(source, names)
        column = _image_column(source, file.schema_arrow)
        if column is None and not set(_PATH_COLUMNS) & set(names):
            raise WorksError(
                f"{source} has neither a column file_name nor path, nor one of pictures (image, a struct of bytes and"
                f" path, or bytes); it has {', '.join(names)}."
            )
        if column is None:
            return _read_paths(source, file, Folder(source.parent, options.follow_links))
        into = Collection(source.parent, "parquet")
        _take_pictures(source, file, column, into)
    return into.finish()


def read_parquet_folder(folder: Folder, names: list[str], options: ReadOptions) -> SourceWorks:
    """Read all parquets of a folder that hold pictures; but no test split beside a train split."""
    into = Collection(folder.root, "parquet")
    into.left_out += folder.left_out
    check_parquets([folder.root / name for name in sorted(names)])
    others = into.leave_out_splits(names)
    for name in sorted(set(names) - others):
        path = folder.root / name
        with _readable(path):
            file = pq.ParquetFile(path)
            check_columns(path, [column_name(one) for one in file.schema_arrow.names])
            column = _image_column(path, file.schema_arrow)
            if column is None:
                into.leave_out(name, "no-pictures", "it is a table without pictures in it")
                continue
            _take_pictures(path, file, column, into)
    return into.finish()


class _readable:  # noqa: N801 - reads as a phrase
    """What pyarrow raises for damaged files, as a sentence."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError | ValueError | OverflowError | pa.ArrowException | MemoryError):
            said = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
            raise WorksError(f"{self._path} can't be read as parquet: {said}") from error


def _image_column(source: Path, schema: pa.Schema) -> str | None:
    """The binary leaf that holds pictures; raises WorksError where there are several and none is called image."""
    leaves: dict[str, str] = {}
    for field in schema:
        kind = field.type
        if pa.types.is_struct(kind):
            inner = next((one for one in kind if one.name == "bytes"), None)
            if inner is not None and (pa.types.is_binary(inner.type) or pa.types.is_large_binary(inner.type)):
                leaves[field.name] = f"{field.name}.bytes"
        elif column_name(field.name).lower() in _IMAGE_COLUMNS:
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                leaves[field.name] = field.name
            elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
                raise WorksError(
                    f"{source} has lists in its column {field.name}; one picture for each row can be read."
                )
    for name in _IMAGE_COLUMNS:
        for own, leaf in leaves.items():
            if column_name(own).lower() == name:
                return leaf
    if len(leaves) > 1:
        raise WorksError(
            f"{source} has pictures in the columns {', '.join(leaves)}; call the one that was trained on image."
        )
    return next(iter(leaves.values()), None)


def _rows(source: Path, file: pq.ParquetFile, without: str | None) -> Iterator[dict[str, Any]]:
    """Rows without the pictures; raises WorksError where its text alone is too large to hold."""
    names = [field.name for field in file.schema_arrow if field.name != without]
    leaves = [file.metadata.schema.column(number).path for number in range(file.metadata.num_columns)]
    kept = [number for number, leaf in enumerate(leaves) if leaf.split(".")[0] in names]
    size = sum(
        file.metadata.row_group(group).column(number).total_uncompressed_size
        for group in range(file.metadata.num_row_groups)
        for number in kept
    )
    if size > _MAX_TEXT_BYTES:
        raise WorksError(
            f"{source} has {size / 1e9:,.1f} GB beside its pictures; {_MAX_TEXT_BYTES / 1e9:,.1f} GB can be read."
            " Leave out the columns that don't describe the works."
        )
    if not names:
        yield from ({} for _ in range(file.metadata.num_rows))
        return
    texts = [
        field.name for field in file.schema_arrow if pa.types.is_string(field.type) and field.name in names
    ]
    classes = _classes(file.schema_arrow)
    # As dictionaries, so that a value which many rows share isn't copied for each.
    shared = pq.ParquetFile(source, read_dictionary=texts)
    for batch in shared.iter_batches(_ROWS_AT_ONCE, columns=names):
        columns = [
            _named(_python(values), classes.get(name))
            for name, values in zip(batch.schema.names, batch.columns, strict=True)
        ]
        for values in zip(*columns, strict=True):
            yield {
                name: value
                for name, value in zip(batch.schema.names, values, strict=True)
                if value is not None
            }


def _classes(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of the classes that columns hold the numbers of, as Hugging Face's `ClassLabel` keeps them."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = about["info"]["features"]
        return {name: names for name, one in features.items() if (names := _class_names(one))}
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return {}


def _class_names(feature: Any) -> list[str] | None:
    """The names of a `ClassLabel`, or of the one that a list is of, in the spellings of its versions."""
    for _ in range(_MAX_LISTS):
        if isinstance(feature, list) and len(feature) == 1:
            (feature,) = feature
        elif isinstance(feature, dict) and feature.get("_type") in ("Sequence", "List", "LargeList"):
            feature = feature.get("feature")
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return None
    names = feature.get("names")
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _named(values: list[Any], names: list[str] | None) -> list[Any]:
    """The names for numbers of classes; -1 is no class, and a number that has no name stays."""

    def one(value: Any) -> Any:
        if isinstance(value, list):
            return [one(each) for each in value]
        if not isinstance(value, int) or isinstance(value, bool) or names is None:
            return value
        return None if value == -1 else names[value] if 0 <= value < len(names) else value

    return values if names is None else [one(value) for value in values]


def _python(values: Any) -> list[Any]:
    if not pa.types.is_dictionary(values.type):
        return list(values.to_pylist())
    words = values.dictionary.to_pylist()
    return [None if at is None else words[at] for at in values.indices.to_pylist()]


def _take_pictures(source: Path, file: pq.ParquetFile, leaf: str, into: Collection) -> None:
    name = source.relative_to(into.root).as_posix()
    pictures = ParquetPictures(source, leaf)
    own = leaf.split(".")[0]
    for number, (raw, size) in enumerate(zip(_rows(source, file, own), pictures.sizes(), strict=True)):
        called = f"{name}/{number:06d}"
        if size is None or size == 0:
            into.leave_out(called, "no-bytes", "the table has no picture in this row")
        elif size > MAX_PICTURE_BYTES:
            into.leave_out(called, "too-large", f"it has {size:,} bytes; {MAX_PICTURE_BYTES:,} are read")
        else:
            row = spelled(raw, f"{source} row {number}")
            caption = row.caption and f"column {row.caption}"
            into.works.append(Work(called, ParquetPlace(pictures, number), row.values, caption))
            into.remarks += [Remark(called, *note) for note in row.notes]


def _read_paths(source: Path, file: pq.ParquetFile, folder: Folder) -> SourceWorks:
    named = NamedRows(folder, set())
    count = 0
    for number, raw in enumerate(_rows(source, file, None)):
        place = f"{source} row {number}"
        row = spelled(raw, place)
        column = next((name for name in _PATH_COLUMNS if name in row.values), "file_name")
        named.add(inside(row.values.pop(column, None), folder.root, folder.root, place), row, place)
        count += 1
    if not named.rows:
        if any(remark.code == "outside-link" for remark in folder.left_out):
            raise WorksError(nothing_there(folder))
        raise WorksError(
            f"none of the {count:,} files that {source} names is there; paths are relative to it."
        )
    into = Collection(folder.root, "parquet")
    for name, row in named.rows.items():
        caption = row.caption and f"column {row.caption}"
        into.works.append(Work(name, FilePlace(folder.root / name), row.values, caption))
    into.left_out, into.remarks = folder.left_out, named.remarks
    return into.finish()
