"""What Fooocus, InvokeAI, SwarmUI and NovelAI write into pictures."""

import json

import pytest

from das.images import DeclaredLora, normalise
from tests.das.generated_files import (
    FOOCUS,
    INVOKEAI,
    NOVELAI,
    said,
    unicode_comment,
    with_comment,
    with_hidden,
    with_texts,
)

AS_FOOOCUS = {
    "tool": "Fooocus",
    "prompt": "a red boat",
    "negative_prompt": "blurry",
    "seed": 8877665544332211,
    "steps": 30,
    "sampler": "dpmpp_2m_sde_gpu",
    "guidance": 4.0,
    "model": "juggernautXL_v8Rundiffusion",
    "model_hash": "aeb7e9e689",
    "loras": (DeclaredLora("sd_xl_offset", "4852686128", 0.1),),
    "ai_generated": None,
    "cut": (),
}


@pytest.mark.parametrize(
    ("data", "source"),
    [
        (with_texts({"parameters": json.dumps(FOOCUS), "fooocus_scheme": "fooocus"}), "PNG text parameters"),
        (
            with_comment(json.dumps(FOOCUS), "WEBP", main=True, tag_0131="Fooocus v2.5.5"),
            "WebP EXIF UserComment",
        ),
        (
            with_comment(json.dumps(FOOCUS), "JPEG", main=True, tag_0131="Fooocus v2.5.5"),
            "JPEG EXIF UserComment",
        ),
    ],
)
def test_fooocus(data, source):
    assert vars(said(data)) == {"source": source, **AS_FOOOCUS}


def test_fooocus_before_it_named_its_fields():
    older = {"Prompt": "a boat", "Seed": 5, "Base Model": "x.safetensors", "LoRA 1": "True : dir/y : 0.5"}

    found = said(with_texts({"parameters": json.dumps(older)}))

    assert (found.prompt, found.seed, found.model) == ("a boat", 5, "x.safetensors")
    assert found.loras == (DeclaredLora("y", None, 0.5),)


def test_invokeai():
    assert vars(said(with_texts({"invokeai_metadata": json.dumps(INVOKEAI)}))) == {
        "source": "PNG text invokeai_metadata",
        "tool": "InvokeAI",
        "prompt": "a red boat",
        "negative_prompt": "blurry",
        "seed": 2271346513,
        "steps": 30,
        "sampler": "euler",
        "guidance": 7.5,
        "model": "stable-diffusion-xl-base",
        "model_hash": None,  # BLAKE3 is no SHA-256
        "loras": (DeclaredLora("storm", 64 * "b", 0.75),),
        "ai_generated": None,
        "cut": (),
    }
    older = {**INVOKEAI, "model": {"model_name": "sd-1", "base_model": "sd-1"}, "loras": None}
    assert said(with_texts({"invokeai_metadata": json.dumps(older)})).model == "sd-1"


@pytest.mark.parametrize(
    "prompt", ["a red boat [blurry, dim]", [{"prompt": "a red boat [blurry, dim]", "weight": 1.0}]]
)
def test_invokeai_before_its_third_version(prompt):
    image = {
        "prompt": prompt,
        "seed": 7,
        "steps": 50,
        "cfg_scale": 7.5,
        "sampler": "k_lms",
        "type": "txt2img",
    }
    old = {"model": "stable diffusion", "model_weights": "stable-diffusion-1.5", "image": image}

    found = said(with_texts({"Dream": '"a red boat" -s 50 -S 7', "sd-metadata": json.dumps(old)}))

    assert (found.source, found.tool) == ("PNG text sd-metadata", "InvokeAI")
    assert (found.prompt, found.negative_prompt, found.seed) == ("a red boat", "blurry, dim", 7)
    assert (found.steps, found.sampler, found.guidance, found.model) == (
        50,
        "k_lms",
        7.5,
        "stable-diffusion-1.5",
    )


def test_several_weighted_prompts_are_none():
    image = {"prompt": [{"prompt": "a", "weight": 1}, {"prompt": "b", "weight": 2}], "seed": 7}

    found = said(with_texts({"sd-metadata": json.dumps({"image": image})}))

    assert (found.prompt, found.seed) == (None, 7)


SWARMUI = {
    "sui_image_params": {
        "prompt": "a red boat",
        "negativeprompt": "blurry",
        "model": "Official/sd_xl_base_1.0.safetensors",
        "seed": 11,
        "steps": 20,
        "cfgscale": 7.0,
        "sampler": "euler",
        "loras": ["styles/ink"],
        "loraweights": ["0.8"],
        "swarm_version": "0.9.3.1",
    },
    "sui_extra_data": {"date": "2025-01-25"},
    "sui_models": [{"name": "sd_xl_base_1.0.safetensors", "param": "model", "hash": "0x" + 64 * "a"}],
}


@pytest.mark.parametrize(
    ("data", "source"),
    [
        (with_texts({"parameters": json.dumps(SWARMUI, indent=2)}), "PNG text parameters"),
        (with_texts({"parameters": json.dumps(SWARMUI)}), "PNG text parameters"),
        (with_comment(json.dumps(SWARMUI), "JPEG"), "JPEG EXIF UserComment"),
    ],
)
def test_swarmui(data, source):
    assert vars(said(data)) == {
        "source": source,
        "tool": "SwarmUI",
        "prompt": "a red boat",
        "negative_prompt": "blurry",
        "seed": 11,
        "steps": 20,
        "sampler": "euler",
        "guidance": 7.0,
        "model": "sd_xl_base_1.0.safetensors",
        "model_hash": None,
        "loras": (DeclaredLora("ink", None, 0.8),),
        "ai_generated": None,
        "cut": (),
    }


@pytest.mark.parametrize("params", [None, [], "a", {"loras": {"a": 1}, "loraweights": 3, "model": 5}])
def test_swarmui_of_other_types_says_nothing(params):
    found = normalise(with_texts({"parameters": json.dumps({"sui_image_params": params})})).declared

    assert found is None or (found.prompt, found.model, found.loras) == (None, None, ())


AS_NOVELAI = {
    "tool": "NovelAI",
    "prompt": "a red boat, best quality",
    "negative_prompt": "blurry",
    "seed": 3221225472,
    "steps": 28,
    "sampler": "k_euler_ancestral",
    "guidance": 5.0,
    "model": "NovelAI Diffusion V4 37442FCA",
    "model_hash": None,
    "loras": (),
    "ai_generated": None,
    "cut": (),
}


@pytest.mark.parametrize(
    ("data", "source"),
    [
        (with_texts(NOVELAI), "PNG text Comment"),
        *(
            (with_hidden(json.dumps(NOVELAI), kind), f"stealth_{kind} in the low bits of the pixels")
            for kind in ("pngcomp", "pnginfo", "rgbcomp", "rgbinfo")
        ),
        (
            with_hidden(json.dumps(NOVELAI), "pngcomp", "WEBP"),
            "stealth_pngcomp in the low bits of the pixels",
        ),
        (with_comment(unicode_comment(json.dumps(NOVELAI)), "WEBP"), "WebP EXIF UserComment"),
    ],
)
def test_novelai(data, source):
    assert vars(said(data)) == {"source": source, **AS_NOVELAI}
