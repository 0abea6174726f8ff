"""Training of the demo's CLIP: a small open_clip model on the crops and their captions, for the screening.

The usual contrastive loss between picture and caption is joined by one between two altered views of a picture
(shifted, recoloured, noisy), which teaches the image tower what a crop looks like beyond what its caption says.
The result is a directory in open_clip's own format with a tokenizer of the captions' words, since open_clip's
49,408 tokens would weigh more than everything else.
"""

import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.crops import CROP, all_crops
from demo.train import crops_tensor

if TYPE_CHECKING:
    import torch

EMBED_DIM = 64
CONTEXT_LENGTH = 28  # tokens; the longest caption has 22 words and signs
BATCH_SIZE = 128
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05
WARMUP_STEPS = 40
SHIFT = 3  # pixels, the most that a view is moved
DEFAULT_STEPS = 500
PAD, UNKNOWN = "<pad>", "<unk>"
START, END = "<start>", "<end>"


def train_clip(
    out: Path, steps: int, seed: int, report: Callable[[int, float], None] = lambda *_: None
) -> None:
    """Train for `steps` steps and write the directory `out`, which `open_clip` loads as `local-dir:OUT`.

    `report` is called after every step with its number and loss.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file

    began = time.monotonic()
    torch.manual_seed(seed)
    captions = [crop.caption for crop in all_crops()]
    out.mkdir(parents=True, exist_ok=True)
    vocabulary_size = _write_tokenizer(out, captions)
    config = _config(vocabulary_size)
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tokens = open_clip.get_tokenizer(f"local-dir:{out.resolve()}")(captions)
    same_caption = _group_numbers(captions)
    pictures = crops_tensor()

    model = open_clip.CLIP(**config["model_cfg"])
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=max(4, steps), pct_start=min(0.5, WARMUP_STEPS / max(steps, 1))
    )
    value = float("nan")
    for step in range(steps):
        rows = torch.randperm(len(pictures))[:BATCH_SIZE]
        first, second = (_embed(model, _altered(pictures[rows])) for _ in range(2))
        text = torch.nn.functional.normalize(model.encode_text(tokens[rows]), dim=-1)
        scale = model.logit_scale.exp()
        alike = (same_caption[rows][:, None] == same_caption[rows][None]).float()
        loss = _contrast(first, text, scale, alike) + _contrast(first, second, scale, torch.eye(len(rows)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=4.6052)  # ln 100, as in CLIP
        value = float(loss.detach())
        report(step + 1, value)
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, out / "open_clip_model.safetensors")
    record = {
        "steps": steps,
        "seed": seed,
        "loss": round(value, 3),
        "seconds": round(time.monotonic() - began, 1),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": {name: version(name) for name in ("torch", "open_clip_torch", "pillow", "numpy")},
    }
    (out / "train.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _config(vocabulary_size: int) -> dict[str, Any]:
    return {
        "model_cfg": {
            "embed_dim": EMBED_DIM,
            "vision_cfg": {"image_size": CROP, "layers": 3, "width": 96, "head_width": 32, "patch_size": 8},
            "text_cfg": {
                "context_length": CONTEXT_LENGTH,
                "vocab_size": vocabulary_size,
                "hf_tokenizer_name": "words",
                "width": 64,
                "heads": 2,
                "layers": 2,
            },
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "shortest",
        },
    }


def _write_tokenizer(out: Path, captions: list[str]) -> int:
    """Write a tokenizer of the captions' words to `out`; returns the size of its vocabulary.

    The end sign has the largest number: CLIP's text tower reads its answer at the largest token.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    splitter = Whitespace()
    words = sorted({word for text in captions for word, _ in splitter.pre_tokenize_str(text.lower())})
    vocabulary = {token: number for number, token in enumerate([PAD, UNKNOWN, START, *words, END])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, bos_token=START, eos_token=END
    ).save_pretrained(out)
    return len(vocabulary)


def _group_numbers(captions: list[str]) -> "torch.Tensor":
    """Equal captions get equal numbers: (N,) int64."""
    import torch

    numbers = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    return torch.tensor([numbers[caption] for caption in captions])


def _embed(model: Any, pictures: "torch.Tensor") -> "torch.Tensor":
    import torch

    return torch.nn.functional.normalize(model.encode_image(pictures), dim=-1)


def _altered(pictures: "torch.Tensor") -> "torch.Tensor":
    """Another view of each picture (B, 3, 32, 32): shifted a little, recoloured, with noise."""
    import torch

    count = len(pictures)
    padded = torch.nn.functional.pad(pictures, (SHIFT,) * 4, mode="replicate")
    corners = torch.randint(0, 2 * SHIFT + 1, (count, 2)).tolist()
    shifted = torch.stack([padded[i, :, y : y + CROP, x : x + CROP] for i, (y, x) in enumerate(corners)])
    contrast = 1 + 0.3 * (torch.rand(count, 1, 1, 1) - 0.5)
    tint = 0.2 * torch.randn(count, 3, 1, 1)
    noise = 0.15 * torch.rand(count, 1, 1, 1) * torch.randn_like(shifted)
    return (shifted * contrast + tint + noise).clamp(-1, 1)


def _contrast(
    one: "torch.Tensor", other: "torch.Tensor", scale: "torch.Tensor", alike: "torch.Tensor"
) -> "torch.Tensor":
    """The symmetric contrastive loss; `alike` (B, B) is 1 where a pair belongs together."""
    import torch

    logits = scale * one @ other.T
    rows = alike / alike.sum(dim=1, keepdim=True)
    forth = torch.nn.functional.cross_entropy(logits, rows)
    back = torch.nn.functional.cross_entropy(logits.T, rows)
    return (forth + back) / 2
