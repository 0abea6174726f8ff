"""What *looks similar*: CLIP embeddings of the works and exact nearest neighbours by inner product.

This says nothing about influence. It chooses candidates where scoring all works would cost too much, and
gives a page its look-alikes; the two numbers are never mixed.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from das.config import ClipSpec
from das.errors import IndexFormatError, ModelError

if TYPE_CHECKING:
    import torch

INDEX_NAME = "screening.faiss"

HALF_PRECISION_FROM = 200_000
"""Works from which the vectors are kept in half precision: a million of 512 are 1 GB instead of 2.

The search stays exhaustive either way, and the vectors are mapped. One query against a million is one pass over that
gigabyte, some 40 ms of a core; inverted lists save most of it and miss candidates (decision 46 has the figures).
"""

_ADD_CHUNK = 65_536


class Embedder:
    """The image half of an open_clip model. Load with `Embedder.load`."""

    def __init__(self, encode: Any, preprocess: Any, spec: ClipSpec, digest: str, device: str) -> None:
        self._encode = encode
        self._preprocess = preprocess
        self._device = device
        self.spec = spec
        self.digest = digest
        """sha256 over the image encoder's weights: which model it is, wherever it was loaded from."""
        self.dimension = self.embed([np.zeros((32, 32, 3), np.uint8)]).shape[1]
        """e, the length of an embedding."""

    @classmethod
    def load(cls, spec: ClipSpec | dict[str, Any], device: str = "cpu") -> Self:
        """Load the image encoder that `spec` names (see ClipSpec); the text encoder is let go.

        Raises:
            ModelError: if the directory isn't an open_clip model, the name is unknown, or the weights are
                neither on this machine nor to be downloaded.
        """
        import open_clip

        spec = spec if isinstance(spec, ClipSpec) else ClipSpec(**spec)
        name, pretrained = str(spec.model), spec.pretrained
        if spec.directory is not None:
            if not (spec.directory / "open_clip_config.json").is_file():
                raise ModelError(
                    f"{spec.directory} isn't an open_clip model: it has no open_clip_config.json."
                    " Name a directory in open_clip's own format."
                )
            name, pretrained = f"local-dir:{spec.directory.resolve()}", None
        try:
            model, preprocess = open_clip.create_model_from_pretrained(name, pretrained, device=device)
        except Exception as error:  # the downloader raises its own kinds; all end the same way
            raise ModelError(
                f"the CLIP model {spec.describe()} can't be loaded: {error} "
                "Without a network, name a local open_clip model with --clip-dir."
            ) from error
        model.eval().requires_grad_(False)
        if type(model) in (open_clip.CLIP, open_clip.CustomTextCLIP):
            # Their `encode_image` is the visual tower alone; keeping that alone halves the memory or more.
            encode, weights = model.visual, model.visual.state_dict()
        else:
            encode, weights = model.encode_image, model.state_dict()
        return cls(encode, preprocess, spec, _weights_digest(weights), device)

    def check(self, digest: str, index_id: str) -> None:
        """Raise ModelError unless the weights are those that the index recorded."""
        if self.digest != digest:
            raise ModelError(
                f"the CLIP model {self.spec.describe()} isn't the one that {index_id} was built with: the digest of"
                f" its weights is {self.digest[:12]}, the index has {digest[:12]}."
            )

    def embed(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """Embed pictures, each (H, W, 3) uint8 sRGB; returns (B, e) float32 with rows of unit norm."""
        return self.embed_with_norms(pixels)[0]

    def embed_with_norms(self, pixels: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """As `embed`, and the embeddings' norms before they were normalised, (B,) float32."""
        import torch
        from PIL import Image

        batch = torch.stack([self._preprocess(Image.fromarray(picture)) for picture in pixels])
        with torch.inference_mode():
            vectors = self._encode(batch.to(self._device)).float()
            norms = torch.linalg.vector_norm(vectors, dim=-1)
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return vectors.cpu().numpy(), norms.cpu().numpy()


class NoEmbedder:
    """What a build without screening has in CLIP's place: embeddings of no numbers."""

    digest = ""
    dimension = 0

    def embed(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """(B, 0) float32."""
        return np.empty((len(pixels), 0), np.float32)

    def embed_with_norms(self, pixels: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """As `embed`, and norms of nothing, (B,) float32."""
        return self.embed(pixels), np.zeros(len(pixels), np.float32)


class Screen:
    """Nearest works by CLIP similarity: an exhaustive FAISS search over an index's embeddings."""

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def open(cls, index_dir: Path) -> Self:
        """Map an index's screening part: its vectors aren't read into memory.

        Raises:
            IndexFormatError: it isn't one, or is cut short.
        """
        import faiss

        path = index_dir / INDEX_NAME
        try:
            return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))
        except RuntimeError as error:
            raise IndexFormatError(f"{path} can't be read as a FAISS index: {error}") from error

    @property
    def dimension(self) -> int:
        """e, the length of an embedding."""
        return int(self._index.d)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def nearest(self, embedding: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The `k` works most similar to `embedding` (e,), best first: rows (k,) int64, cosines (k,) float32.

        Fewer than k where the index holds fewer. Equal similarities come in the order of their rows.
        """
        similarities, rows = self._index.search(
            np.ascontiguousarray(embedding, np.float32)[None], min(k, len(self))
        )
        order = np.lexsort((rows[0], -similarities[0]))
        return rows[0][order], similarities[0][order]


def write_screen(path: Path, embeddings: np.ndarray) -> str:
    """Write the FAISS index of `embeddings` (N, e) float32; returns its kind, "flat" or "flat-float16".

    Raises:
        OSError: it can't be written.
    """
    import faiss

    dimension = embeddings.shape[1]
    if len(embeddings) < HALF_PRECISION_FROM:
        kind = "flat"
        index: Any = faiss.IndexFlatIP(dimension)
    else:
        kind = "flat-float16"
        index = faiss.IndexScalarQuantizer(
            dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
    for start in range(0, len(embeddings), _ADD_CHUNK):
        index.add(np.ascontiguousarray(embeddings[start : start + _ADD_CHUNK], np.float32))
    # By a stream of ours: FAISS's own tells of a full disk in an error of any kind.
    with path.open("wb") as stream:
        faiss.write_index(index, faiss.PyCallbackIOWriter(stream.write))  # type: ignore[attr-defined]
    return kind


def _weights_digest(weights: "dict[str, torch.Tensor]") -> str:
    import torch

    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
