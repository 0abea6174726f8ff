"""Works whose creators and rights holders are several, some of them unknown or sharing a work."""

import numpy as np
import pyarrow as pa

from das.works import Works


def named(works: Works) -> Works:
    """The same works, of nine creators and four texts of rights holders."""
    table, rng = works.table, np.random.default_rng(5)
    creators = [None if code == 3 else f"Creator {code}" for code in rng.integers(0, 9, len(works))]
    holders = [[None, "Ada", "Ada 60%; Eve 40%", "Eve"][code] for code in rng.integers(0, 4, len(works))]
    for column, values in (("creator", creators), ("rights_holder", holders)):
        place = table.column_names.index(column)
        table = table.set_column(place, column, pa.array(values, pa.string()))
    return Works(table)
