"""What a page with a form says of its fields."""

import re

BESIDE = re.compile(r'<p class="mistake" id="([a-z_-]+)-wrong"(?: lang="en")?>([^<]+)</p>')


def beside(page: str) -> dict[str, str]:
    """What stands beside the fields."""
    return dict(BESIDE.findall(page))


def field(page: str, name: str) -> str:
    """The tag of a field."""
    found = re.search(rf'<(?:input|textarea|select)[^>]* id="{name}"[^>]*>', page)
    assert found is not None
    return found[0]
