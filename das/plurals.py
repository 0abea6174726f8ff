"""Numbers of things in English sentences: `1 work`, `1,200 works`."""


def counted(count: int, one: str, many: str = "") -> str:
    """So many of what `one` names in the singular; `many` where its plural isn't that with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
