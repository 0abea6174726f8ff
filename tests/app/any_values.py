"""Values of every kind, for every place of a request."""

from urllib.parse import quote

from hypothesis import strategies as st

ODD = st.sampled_from(
    ["9" * 5000, "-" + "9" * 5000, "1e400", "1e-400", "NaN", "inf", "0x10", "1_0", "٣", "\x00", "\ud800",
     "\U0010ffff", "\u202e", "true", "null", "[]", "{}", "", " ", "2026-13-40T00:00:00Z", "0001-01-01T00:00:00+23:59",
     "9999-12-31T23:59:59-23:59", "-1", "9223372036854775808"]
)  # fmt: skip
TEXT = ODD | st.text(max_size=40) | st.integers().map(str)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
# JSON that Python wouldn't write itself.
RAW = st.sampled_from(
    ["9" * 5000, "-" + "9" * 5000, "1e999", "0." + "9" * 5000, "NaN", '"\\ud800"', '"\\u0000"', "01"]
)


def encoded(text: str) -> str:
    """A text as it may stand in an address; what isn't UTF-8 as its bytes."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="")
