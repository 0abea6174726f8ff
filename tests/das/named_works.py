"""Tables of works by their creators, titles and rights holders."""

import numpy as np
import pyarrow as pa

from das.works import COLUMNS, Works


def table(creators: list[str | None], titles: list[str | None]) -> Works:
    """One work for each creator and title, each in training once."""
    columns = {name: pa.array([None] * len(creators), pa.string()) for name in COLUMNS}
    columns["creator"] = pa.array(creators, pa.string())
    columns["title"] = pa.array(titles, pa.string())
    columns["repeats"] = pa.array([1] * len(creators))
    return Works(pa.table(columns))


def named(works: Works) -> Works:
    """The same works, of nine creators and four texts of rights holders, some unknown or sharing a work."""
    table, rng = works.table, np.random.default_rng(5)
    creators = [None if code == 3 else f"Creator {code}" for code in rng.integers(0, 9, len(works))]
    holders = [[None, "Ada", "Ada 60%; Eve 40%", "Eve"][code] for code in rng.integers(0, 4, len(works))]
    for column, values in (("creator", creators), ("rights_holder", holders)):
        place = table.column_names.index(column)
        table = table.set_column(place, column, pa.array(values, pa.string()))
    return Works(table)
