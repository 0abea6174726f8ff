"""Whether CLIP has to be downloaded, and whether it can be: told before a build starts, without importing torch."""

from pathlib import Path

from das.config import ClipSpec
from das.errors import ModelError
from das.hub import cached, unreachable

# Repository and bytes of the models that the documentation names; others are found out by open_clip when they load.
_KNOWN = {
    ("ViT-B-32", "laion2b_s34b_b79k"): ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", 605_000_000),
    ("ViT-B-16", "laion2b_s34b_b88k"): ("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", 599_000_000),
}
_WITHOUT = (
    "Name an open_clip model on this machine with --clip-dir, or build with --no-screening: answers then have no"
    " look-alikes."
)


def check_clip(spec: ClipSpec | None) -> str | None:
    """What is to be said before CLIP is loaded; None where nothing is: it is here, or isn't wanted.

    Raises:
        ModelError: it isn't on this machine, and there is no network to download it by.
    """
    if spec is None or spec.directory is not None:
        return None
    repository, size = _KNOWN.get((str(spec.model), str(spec.pretrained)), (None, None))
    if repository is None:
        repository = _repository(str(spec.model), str(spec.pretrained))
    if repository is None or cached(repository):
        return None
    much = "" if size is None else f" ({size / 1e6:,.0f} MB, once)"
    if (why := unreachable()) is not None:
        raise ModelError(
            f"the CLIP model {spec.describe()} isn't on this machine and would have to be downloaded{much}, and the"
            f" hub can't be asked: {why}. {_WITHOUT}"
        )
    return f"The CLIP model {spec.describe()}, which finds look-alikes, is downloaded first{much}. {_WITHOUT}"


def _repository(model: str, pretrained: str) -> str | None:
    """The hub's repository of an open_clip model; None where it comes from elsewhere."""
    import open_clip

    config = open_clip.get_pretrained_cfg(model, pretrained)
    if not config:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model))
        raise ModelError(
            f"open_clip has no weights {pretrained!r} of a model {model!r}"
            + (f"; of this model it has {tags}." if tags else "; it knows no such model.")
        )
    found = str(config.get("hf_hub") or "")
    return str(Path(found)) if found.endswith("/") else str(Path(found).parent) if found else None
