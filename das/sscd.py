"""SSCD: an embedding in which copies lie together, cut, rotated or pasted over (Pizzi et al., CVPR 2022).

No package carries its weights, so the file is given: the authors' TorchScript model, such as `sscd_disc_mixup`.
"""

import logging
import warnings
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from das.copies import WITHOUT_SSCD, CopyFinder
from das.errors import ModelError
from das.index import AttributionIndex
from das.works import file_digest

log = logging.getLogger(__name__)

SHORT_SIDE = 288
LONGEST = 4
"""A picture more times as long as wide is squeezed to it."""

_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
_SPREAD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]  # ImageNet's


class Sscd:
    """The model of one file. Load with `Sscd.load`."""

    def __init__(self, model: Any, digest: str, device: str) -> None:
        self._model = model
        self._device = device
        self.digest = digest
        """sha256 of the file."""
        self.dimension = len(self.embed(np.zeros((SHORT_SIDE, SHORT_SIDE, 3), np.uint8)))
        """e, the length of an embedding."""

    @classmethod
    def load(cls, path: Path | str, device: str = "cpu") -> Self:
        """Load a TorchScript file.

        Raises:
            ModelError: it isn't one, or gives no embedding of a picture.
        """
        path = Path(path)
        try:
            with warnings.catch_warnings():
                # torch.jit is deprecated, but the only form in which SSCD is published.
                warnings.simplefilter("ignore", FutureWarning)
                model = torch.jit.load(str(path), map_location=device).eval()
            return cls(model, file_digest(path), device)
        except (RuntimeError, ValueError, OSError) as error:
            said = str(error).strip().partition("\n")[0]
            raise ModelError(f"{path} can't be used as an SSCD model in TorchScript: {said}") from error

    @torch.inference_mode()
    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """The embedding (e,) float32, of unit norm, of a picture (H, W, 3) uint8 sRGB."""
        image = Image.fromarray(pixels)
        scale = SHORT_SIDE / min(image.size)
        width, height = (min(round(side * scale), LONGEST * SHORT_SIDE) for side in image.size)
        resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
        values = (torch.from_numpy(resized).permute(2, 0, 1) / 255 - _MEAN) / _SPREAD
        found = self._model(values[None].to(self._device))
        if not isinstance(found, torch.Tensor) or found.ndim != 2:
            raise ValueError("it doesn't give one row of numbers for a picture")
        embedding: np.ndarray = torch.nn.functional.normalize(found[0].float(), dim=0).cpu().numpy()
        return embedding


def copy_finder(index: AttributionIndex, device: str = "cpu") -> tuple[CopyFinder, tuple[str, ...]]:
    """What tells copies of an index's works, and what has to be said with it.

    Where the index has SSCD embeddings and the file that made them is nowhere, or another is there, PDQ is asked
    alone.
    """
    copies = index.manifest.copies
    if copies is None or copies.sscd is None:
        return CopyFinder(index), ()
    try:
        sscd = Sscd.load(str(index.sscd_source), device)
        if sscd.digest != copies.sscd.digest:
            raise ModelError(f"{index.sscd_source} isn't the SSCD model that the index was built with.")
    except ModelError as error:
        log.warning("copies of works in %s are told by PDQ alone: %s", index.id, error)
        return CopyFinder(index), (WITHOUT_SSCD,)
    return CopyFinder(index, sscd), ()
