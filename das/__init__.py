"""Which training images does a generated image owe most to? The Diffusion Attribution Score as a library.

>>> from das import AttributionIndex, Attributor
>>> index = AttributionIndex.open("index/")
>>> result = Attributor(index).attribute(image, top_k=20)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from das.answer import Attribution
    from das.attribution import Attributor
    from das.index import AttributionIndex

__all__ = ["Attribution", "AttributionIndex", "Attributor"]

_HOMES = {"Attribution": "das.answer", "AttributionIndex": "das.index", "Attributor": "das.attribution"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import das` stays light."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'das' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
