"""Pictures as generators write them, with what each says of itself; made from the rules of their own programs."""

import gzip
import json
import zlib
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from das.images import Declared, normalise
from tests.das.image_files import png_chunk, saved

PIXELS = np.random.default_rng(3).integers(0, 256, (48, 64, 3), dtype=np.uint8)
USER_COMMENT, MAKE, MODEL, SOFTWARE, MAKER_NOTE = 0x9286, 0x010F, 0x0110, 0x0131, 0x927C

A1111 = (
    "a red boat, <lora:storm:0.8> (waves:1.2)\nat night\n"
    "Negative prompt: blurry,\nugly\n"
    "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 965400086, Size: 512x512,"
    ' Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, Lora hashes: "storm: 1f7c5a9b2d3e, calm: abcdef0123",'
    " Version: v1.10.1"
)


def said(data: bytes) -> Declared:
    """What a picture says of itself, which has to be something."""
    found = normalise(data).declared
    assert found is not None
    return found


def with_texts(texts: dict[str, str], format: str = "PNG", pixels: Any = PIXELS) -> bytes:
    """A PNG with texts by keyword: Latin-1 as tEXt, others as iTXt, as Pillow's `add_text` chooses."""
    info = PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword, text)
    return saved(pixels, format, pnginfo=info)


def with_comment(comment: bytes | str, format: str, *, main: bool = False, **tags: str) -> bytes:
    """A JPEG or WebP with EXIF's UserComment in its own directory, or in the main one; and further tags by number."""
    exif = Image.Exif()
    if main:
        exif[USER_COMMENT] = comment
    else:
        exif.get_ifd(0x8769)[USER_COMMENT] = comment
    for tag, value in tags.items():
        exif[int(tag.removeprefix("tag_"), 16)] = value
    return saved(PIXELS, format, exif=exif)


def with_camera_notes(format: str, notes: dict[int, str]) -> bytes:
    exif = Image.Exif()
    for tag, text in notes.items():
        exif[tag] = text
    return saved(PIXELS, format, exif=exif)


def unicode_comment(text: str, order: str = "be", mark: bytes = b"") -> bytes:
    return b"UNICODE\0" + mark + text.encode(f"utf-16-{order}")


def comfy_graph(**changes: Any) -> dict[str, Any]:
    """The graph of ComfyUI's first example, with a LoRA."""
    graph = {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": 156680208700286,
                "steps": 20,
                "cfg": 8.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
                "model": ["10", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
        },
        "4": {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {"ckpt_name": "sd15/v1-5-pruned.safetensors"},
        },
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red boat", "clip": ["10", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["10", 1]}},
        "10": {
            "class_type": "LoraLoader",
            "inputs": {
                "lora_name": "storm.safetensors",
                "strength_model": 0.8,
                "strength_clip": 1.0,
                "model": ["4", 0],
                "clip": ["4", 1],
            },
        },
    }
    for name, inputs in changes.items():
        node = graph.setdefault(name.removeprefix("node_"), {"class_type": "Other", "inputs": {}})
        node["inputs"] = {**node["inputs"], **inputs}
    return graph


FOOCUS = {
    "base_model": "juggernautXL_v8Rundiffusion",
    "base_model_hash": "aeb7e9e689",
    "full_prompt": ["cinematic still a red boat", "emotional"],
    "guidance_scale": 4,
    "lora_combined_1": "sd_xl_offset : 0.1",
    "loras": [["sd_xl_offset", 0.1, "4852686128"]],
    "metadata_scheme": "fooocus",
    "negative_prompt": "blurry",
    "prompt": "a red boat",
    "sampler": "dpmpp_2m_sde_gpu",
    "seed": "8877665544332211",
    "steps": 30,
    "version": "Fooocus v2.5.5",
}
INVOKEAI = {
    "generation_mode": "sdxl_txt2img",
    "positive_prompt": "a red boat",
    "negative_prompt": "blurry",
    "seed": 2271346513,
    "cfg_scale": 7.5,
    "steps": 30,
    "scheduler": "euler",
    "model": {"key": "k", "hash": "blake3:" + 64 * "a", "name": "stable-diffusion-xl-base", "type": "main"},
    "loras": [{"model": {"name": "storm", "hash": "sha256:" + 64 * "b"}, "weight": 0.75}],
    "app_version": "5.0.0",
}
NOVELAI = {
    "Title": "AI generated image",
    "Description": "a red boat, best quality",
    "Software": "NovelAI",
    "Source": "NovelAI Diffusion V4 37442FCA",
    "Comment": json.dumps(
        {
            "prompt": "a red boat, best quality",
            "steps": 28,
            "scale": 5.0,
            "seed": 3221225472,
            "sampler": "k_euler_ancestral",
            "uc": "blurry",
        }
    ),
}


def with_hidden(text: str, kind: str, format: str = "PNG", *, bits: int | None = None) -> bytes:
    """A picture with a text in its low bits: `kind` is pnginfo, pngcomp (opacity), rgbinfo or rgbcomp (colours)."""
    body = gzip.compress(text.encode(), mtime=0) if kind.endswith("comp") else text.encode()
    length = 8 * len(body) if bits is None else bits
    message = f"stealth_{kind}".encode() + length.to_bytes(4, "big") + body
    values = np.unpackbits(np.frombuffer(message, np.uint8))
    shape = (200, 160)
    colours = np.random.default_rng(5).integers(0, 256, (*shape, 3), dtype=np.uint8)
    pixels = np.dstack([colours, np.full(shape, 255, np.uint8)])
    channels = slice(3, 4) if kind.startswith("png") else slice(0, 3)
    # Column by column, and the channels of each pixel in turn.
    columns = pixels[..., channels].transpose(1, 0, 2).copy()
    flat = columns.reshape(-1)
    assert len(values) <= len(flat)
    flat[: len(values)] = flat[: len(values)] & 0xFE | values
    pixels[..., channels] = columns.transpose(1, 0, 2)
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    return saved(
        pixels if kind.startswith("png") else np.ascontiguousarray(pixels[..., :3]), format, **options
    )


def packed_text(kind: bytes, keyword: str, text: bytes) -> bytes:
    """A chunk zTXt or iTXt with a packed text."""
    between = b"\0\0" if kind == b"zTXt" else b"\0\1\0\0\0"
    return png_chunk(kind, keyword.encode() + between + zlib.compress(text, 9))


def insert_before_data(data: bytes, chunk: bytes) -> bytes:
    """A PNG with a chunk more, right behind its header."""
    return data[:33] + chunk + data[33:]
