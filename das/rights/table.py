"""The signals that come beside works, in columns of their metadata, and the column that an index keeps."""

import re
from collections.abc import Sequence

import pyarrow as pa

from das.errors import WorksError
from das.rights.values import CODES, VALUES, Tdm, from_robots, from_text, strictest

COLUMN = "tdm"
_HEADERS = ("tdm_reservation", "x_robots_tag")


def signals_beside(table: pa.Table) -> list[Tdm | None]:
    """The signal of each work in the columns `tdm`, `tdm-reservation` and `X-Robots-Tag`, however these are written.

    Raises:
        WorksError: a value that isn't known, named with its work.
    """
    found: list[Tdm | None] = [None] * table.num_rows
    names = [name for name in table.column_names if _plain(name) in (COLUMN, *_HEADERS)]
    for name in names:
        # The web writes much there that is no matter of training.
        read = from_robots if _plain(name) == "x_robots_tag" else from_text
        for row, value in enumerate(table[name].to_pylist()):
            try:
                found[row] = strictest([found[row], read(value)])
            except ValueError as error:
                raise WorksError(
                    f"the column {name} says {str(error)[:100]!r} of {table['file'][row].as_py()}, which is no rights"
                    f" signal known here. Give {', '.join(VALUES)}, a value of PLUS (DMI-PROHIBITED and so on), or a"
                    " header as crawls keep them: tdm-reservation 1 or 0, X-Robots-Tag noai. Leave it empty for none."
                ) from error
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.lower())


def with_signals(table: pa.Table, codes: Sequence[int]) -> pa.Table:
    """The table with the column `tdm`: the strictest of what stands beside each work and in its file.

    Args:
        codes: of each row, what its file says, as its place in `CODES`.
    """
    beside = signals_beside(table)
    values = [strictest([one, CODES[code]]) for one, code in zip(beside, codes, strict=True)]
    if COLUMN in table.column_names:
        table = table.drop_columns([COLUMN])
    return table.append_column(COLUMN, pa.array(values, pa.string()))
