"""What a generated picture says of itself: its tool, prompt, seed, model, in the forms that the tools write.

One module for each writer, each with a function `read` from the file's blocks to a `Declared`. Metadata is a claim
and never proof: anybody can write it. It is read where pictures are decoded, in a process that may die.
"""

from collections.abc import Callable

from PIL import Image

from das.images.declared import a1111, comfyui, fooocus, invokeai, novelai, swarmui
from das.images.declared.blocks import Blocks, blocks_of
from das.images.declared.record import Declared, DeclaredLora, declared_from

__all__ = ["Declared", "DeclaredLora", "declared_from", "read_blocks", "read_declared"]

# A1111's form first: other tools write it beside their own, and it says most. NovelAI's hidden object is no prose.
_READERS: tuple[Callable[[Blocks], Declared | None], ...] = (
    a1111.read,
    fooocus.read,
    swarmui.read,
    invokeai.read,
    novelai.read,
    comfyui.read,
)


def read_declared(image: Image.Image, data: bytes, format: str) -> Declared | None:
    """What a picture that is loaded says of itself; None if nothing that is known here.

    Never raises, whatever the metadata are: a picture isn't refused for what its maker wrote beside it.
    """
    try:
        return read_blocks(blocks_of(image, data, format))
    except Exception:  # noqa: BLE001 (hostile metadata; the picture itself is good)
        return None


def read_blocks(blocks: Blocks) -> Declared | None:
    """The first reader's record that has a prompt or a seed, else the first record there is."""
    first = None
    for read in _READERS:
        found = read(blocks)
        if found is not None and (found.prompt is not None or found.seed is not None):
            return found
        first = first or found
    return first
