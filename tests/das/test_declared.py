"""What generated pictures say of themselves: each writer's form, the bounds, and what isn't taken for one."""

import json
import time

import numpy as np
import pytest

from das.errors import ImageRefused
from das.images import Declared, DeclaredLora, normalise
from das.images.declared import declared_from
from das.images.declared.record import MAX_LORAS, MAX_PROMPT, declared
from tests.das.generated_files import (
    A1111,
    INVOKEAI,
    MAKE,
    MODEL,
    PIXELS,
    comfy_graph,
    insert_before_data,
    packed_text,
    said,
    unicode_comment,
    with_camera_notes,
    with_comment,
    with_hidden,
    with_texts,
)
from tests.das.image_files import png_chunk, saved

# --- A1111 ---

AS_A1111 = {
    "tool": "AUTOMATIC1111",
    "prompt": "a red boat, <lora:storm:0.8> (waves:1.2)\nat night",
    "negative_prompt": "blurry,\nugly",
    "seed": 965400086,
    "steps": 20,
    "sampler": "DPM++ 2M",
    "guidance": 7.5,
    "model": "v1-5-pruned-emaonly",
    "model_hash": "6ce0161689",
    "loras": (DeclaredLora("storm", "1f7c5a9b2d3e", 0.8), DeclaredLora("calm", "abcdef0123", None)),
    "ai_generated": None,
    "cut": (),
}


@pytest.mark.parametrize(
    ("data", "source"),
    [
        (with_texts({"parameters": A1111}), "PNG text parameters"),
        (with_comment(unicode_comment(A1111, "be"), "JPEG"), "JPEG EXIF UserComment"),
        (with_comment(unicode_comment(A1111, "le"), "JPEG"), "JPEG EXIF UserComment"),
        (with_comment(unicode_comment(A1111, "le", b"\xff\xfe"), "JPEG"), "JPEG EXIF UserComment"),
        (with_comment(unicode_comment(A1111, "be"), "WEBP"), "WebP EXIF UserComment"),
        (with_comment(unicode_comment(A1111, "le"), "WEBP"), "WebP EXIF UserComment"),
        (with_comment(b"ASCII\0\0\0" + A1111.encode(), "JPEG"), "JPEG EXIF UserComment"),
        (with_comment(b"UNICODE\0" + A1111.encode(), "JPEG"), "JPEG EXIF UserComment"),
        (with_hidden(A1111, "pnginfo"), "stealth_pnginfo in the low bits of the pixels"),
        (with_hidden(A1111, "rgbcomp"), "stealth_rgbcomp in the low bits of the pixels"),
    ],
)
def test_a1111_from_every_place_that_it_and_its_forks_write_to(data, source):
    assert vars(said(data)) == {"source": source, **AS_A1111}


def test_a_prompt_in_another_writing_is_read_in_either_byte_order_and_from_utf8_in_latin1():
    text = A1111.replace("a red boat", "赤い船、夜")

    for data in (
        with_texts({"parameters": text}),
        with_comment(unicode_comment(text, "be"), "JPEG"),
        with_comment(unicode_comment(text, "le"), "WEBP"),
        insert_before_data(saved(PIXELS, "PNG"), png_chunk(b"tEXt", b"parameters\0" + text.encode())),
    ):
        assert said(data).prompt == "赤い船、夜, <lora:storm:0.8> (waves:1.2)\nat night"


def test_quoted_values_are_json_and_may_hold_commas_and_colons():
    found = said(
        with_texts({"parameters": 'boat\nSteps: 3, Sampler: "Euler: a, \\"b\\"", Seed: 1, Model: "x, y"'})
    )

    assert (found.sampler, found.model, found.seed) == ('Euler: a, "b"', "x, y", 1)


def test_the_last_line_is_of_the_prompt_where_it_holds_fewer_than_three_pairs():
    assert normalise(with_texts({"parameters": "a boat\nSteps: 3, Seed: 1"})).declared is None
    found = said(with_texts({"parameters": "key: one\nno: two, three: 3\nSteps: 3, Seed: 1, Size: 8x8"}))
    assert (found.prompt, found.steps, found.seed) == ("key: one\nno: two, three: 3", 3, 1)


def test_a_text_of_pairs_that_no_generator_wrote_says_nothing():
    assert normalise(with_texts({"parameters": "Camera: box, Film: fine, Lens: long"})).declared is None


def test_the_resource_hashes_of_civitai_name_the_model_and_its_loras():
    text = (
        'boat\nSteps: 3, Sampler: Euler, Seed: 1, Hashes: {"model": "aabbccddee", "lora:storm": "0011223344"}'
    )

    found = said(with_texts({"parameters": text}))

    assert (found.model_hash, found.loras) == ("aabbccddee", (DeclaredLora("storm", "0011223344"),))


@pytest.mark.parametrize(
    ("version", "tool"),
    [
        ("v1.10.1", "AUTOMATIC1111"),
        ("f2.0.1v1.10.1", "Stable Diffusion WebUI Forge"),
        ("Fooocus v2.5.5", "Fooocus"),
        ("ComfyUI", "ComfyUI"),
        ("neo", "AUTOMATIC1111 or a fork"),
    ],
)
def test_the_version_tells_the_fork(version, tool):
    assert (
        said(with_texts({"parameters": f"x\nSteps: 1, Seed: 2, Size: 8x8, Version: {version}"})).tool == tool
    )


@pytest.mark.parametrize("seed", ["-1", "1e5", str(2**64), "seven", ""])
def test_what_is_no_seed_is_none(seed):
    assert (
        said(with_texts({"parameters": f"x\nSteps: 1, Sampler: Euler, Seed: {seed}, Size: 8x8"})).seed is None
    )


def test_tags_that_call_extra_networks_are_no_part_of_the_prompt_that_an_encoder_gets():
    assert said(with_texts({"parameters": A1111})).asked_prompt == "a red boat, waves\nat night"


@pytest.mark.parametrize(
    ("prompt", "asked", "bracketed"),
    [
        ("a cat (fluffy:1.3), [dog|wolf]", "a cat fluffy, [dog|wolf]", True),
        ("((a (red:1.1) boat:1.2), sea: 0.9)", "a red boat, sea", True),
        (r"saber \(fate\), (ruins \(old\):.5)", "saber (fate), ruins (old)", True),
        ("(c) by me, at 10:30", "(c) by me, at 10:30", True),
        (r"\(10:1.3\)", "(10:1.3)", True),
        ("a boat, 16:9 <lora:x(1):0.8>", "a boat, 16:9", False),
    ],
)
def test_weights_are_no_words(prompt, asked, bracketed):
    found = declared("a test", prompt=prompt)
    assert (found.asked_prompt, found.bracketed) == (asked, bracketed)


@pytest.mark.parametrize(
    "behind",
    [
        "Template: a {red|blue} boat",
        "Template: a {red|blue} boat,\nat __time__\nNegative Template: bad",
        "Negative Template: bad",
    ],
)
def test_templates_that_stand_behind_the_pairs_cost_nothing(behind):
    plain, found = (said(with_texts({"parameters": text})) for text in (A1111, f"{A1111}\n{behind}"))
    assert found == plain
    assert found.seed == 965400086


# --- ComfyUI ---

AS_COMFYUI = {
    "tool": "ComfyUI",
    "prompt": "a red boat",
    "negative_prompt": "blurry",
    "seed": 156680208700286,
    "steps": 20,
    "sampler": "euler",
    "guidance": 8.0,
    "model": "v1-5-pruned.safetensors",
    "model_hash": None,
    "loras": (DeclaredLora("storm", None, 0.8),),
    "ai_generated": None,
    "cut": (),
}
GRAPH = json.dumps(comfy_graph())


@pytest.mark.parametrize(
    ("data", "source"),
    [
        (with_texts({"prompt": GRAPH}), "PNG text prompt"),
        (with_texts({"prompt": GRAPH, "workflow": '{"nodes": []}'}), "PNG text prompt"),
        (
            with_camera_notes("WEBP", {MODEL: "prompt:" + GRAPH, MAKE: 'workflow:{"nodes": []}'}),
            "WebP EXIF 0x0110",
        ),
        (with_camera_notes("WEBP", {MAKE: "Prompt: " + GRAPH}), "WebP EXIF 0x010F"),
        (
            insert_before_data(saved(PIXELS, "PNG"), png_chunk(b"comf", b"prompt\0" + GRAPH.encode())),
            "PNG text prompt",
        ),
    ],
)
def test_comfyui_from_png_and_webp(data, source):
    assert vars(said(data)) == {"source": source, **AS_COMFYUI}


def comfy(**changes) -> Declared:
    return said(with_texts({"prompt": json.dumps(comfy_graph(**changes))}))


def test_a_seed_and_a_text_may_be_linked_to_plain_values():
    found = comfy(
        node_3={"seed": ["20", 0]},
        node_20={"value": 7},
        node_6={"text": ["21", 0]},
        node_21={"string": "a blue boat"},
    )

    assert (found.seed, found.prompt) == (7, "a blue boat")


def test_a_controlnet_on_the_way_passes_what_its_slot_stands_for():
    net = {"positive": ["6", 0], "negative": ["7", 0], "image": ["30", 0]}

    found = comfy(node_3={"positive": ["22", 0], "negative": ["22", 1]}, node_22=net)

    assert (found.prompt, found.negative_prompt) == ("a red boat", "blurry")


def test_the_advanced_sampler_names_its_seed_otherwise():
    graph = comfy_graph()
    graph["3"]["inputs"]["noise_seed"] = graph["3"]["inputs"].pop("seed")

    assert said(with_texts({"prompt": json.dumps(graph)})).seed == 156680208700286


def test_two_samplers_say_what_they_agree_about():
    second = {**comfy_graph()["3"]["inputs"], "seed": 5, "steps": 10}

    found = comfy(node_40=second)

    assert (found.prompt, found.model, found.sampler) == ("a red boat", "v1-5-pruned.safetensors", "euler")
    assert (found.seed, found.steps) == (None, None)


@pytest.mark.parametrize(
    "change",
    [
        {"node_3": {"positive": ["50", 0]}},  # leads nowhere
        {"node_3": {"positive": ["8", 0]}, "node_8": {"conditioning": ["8", 0]}},  # in a circle
        {
            "node_3": {"positive": ["8", 0]},
            "node_8": {"conditioning_1": ["6", 0], "conditioning_2": ["7", 0]},
        },
        {"node_6": {"text": ["21", 0]}, "node_21": {"text": "a", "string": "b"}},
        # Texts that a node makes: drawn, written by a model, put together.
        {"node_6": {"text": ["21", 0]}, "node_21": {"text": "a {red|blue} __animal__", "autorefresh": "No"}},
        {"node_6": {"text": ["21", 0]}, "node_21": {"text": "write of a cat", "model": "x"}},
        {
            "node_6": {"text": ["21", 0]},
            "node_21": {"string": "a ANIMAL", "find": "ANIMAL", "replace": "dog"},
        },
        {
            "node_3": {"positive": ["8", 0]},
            "node_8": {"text_g": ["21", 0], "text_l": ["21", 0]},
            "node_21": {"string_a": "a cat", "string_b": "on a mat"},
        },
        {"node_3": {"positive": ["8", 0]}, "node_8": {"text_g": "a cat", "text_l": ["21", 0]}},
    ],
)
def test_what_doesn_t_plainly_follow_is_left_empty(change):
    assert comfy(**change).prompt is None


def test_both_encoders_of_sdxl_may_be_linked_to_one_text():
    sdxl = {"text_g": ["21", 0], "text_l": ["21", 0], "width": 1024}
    linked = comfy(node_3={"positive": ["8", 0]}, node_8=sdxl, node_21={"value": "a blue boat"})
    empty = comfy(node_3={"positive": ["8", 0]}, node_8={"text_g": "", "text_l": ""})

    assert (linked.prompt, empty.prompt) == ("a blue boat", "")


def test_what_samples_faces_anew_is_no_sampler_of_the_picture():
    sampled = comfy_graph()["3"]["inputs"]
    face = {**sampled, "seed": 99, "denoise": 0.4, "image": ["30", 0], "positive": ["41", 0]}
    text = {"text": "detailed face"}

    beside = comfy(node_40=face, node_41=text)
    # What FLUX is sampled with is said by other nodes.
    spread = comfy(node_40=face, node_41=text, node_50={"noise": ["51", 0], "guider": ["52", 0]})

    assert (beside.prompt, beside.seed) == ("a red boat", 156680208700286)
    assert (spread.tool, spread.prompt, spread.seed, spread.model) == ("ComfyUI", None, None, None)


def test_a_text_that_is_zeroed_is_no_prompt():
    graph = comfy_graph(node_3={"negative": ["8", 0]}, node_8={"conditioning": ["6", 0]})
    graph["8"]["class_type"] = "ConditioningZeroOut"
    found = said(with_texts({"prompt": json.dumps(graph)}))

    assert (found.prompt, found.negative_prompt) == ("a red boat", None)


def test_a_graph_that_spreads_sampling_over_nodes_says_its_tool_alone():
    graph = comfy_graph()
    for name in ("cfg", "steps"):
        del graph["3"]["inputs"][name]

    found = said(with_texts({"prompt": json.dumps(graph)}))

    assert (found.tool, found.prompt, found.seed, found.model) == ("ComfyUI", None, None, None)


def test_a_text_prompt_that_is_no_graph_says_nothing():
    for text in ("a red boat", "{}", '{"a": 1}', "[" * 100_000, '{"a":' * 100_000, "{" + "9" * 9000 + "}"):
        assert normalise(with_texts({"prompt": text})).declared is None


# --- what is hostile, and what is nothing ---


def test_a_plain_picture_says_nothing():
    for format in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "AVIF"):
        assert normalise(saved(PIXELS, format)).declared is None
    assert normalise(saved(np.dstack([PIXELS, PIXELS[..., :1]]), "PNG")).declared is None


def test_hostile_text_is_text():
    prompt = "<script>alert(1)</script> a\x00b\x1b[31m c\u202ed\u2066e \ud800 {{7*7}}"
    found = said(with_texts({"invokeai_metadata": json.dumps({**INVOKEAI, "positive_prompt": prompt})}))

    assert found.prompt == "<script>alert(1)</script> ab[31m cde  {{7*7}}"


def test_long_texts_are_cut_and_that_is_told():
    long = {
        **INVOKEAI,
        "positive_prompt": "x" * 50_000,
        "scheduler": "y" * 1000,
        "loras": [{"model": {"name": f"lora {n}"}, "weight": 1} for n in range(40)],
    }
    found = said(with_texts({"invokeai_metadata": json.dumps(long)}))

    assert (len(found.prompt), len(found.sampler), len(found.loras)) == (MAX_PROMPT, 200, MAX_LORAS)
    assert set(found.cut) >= {"prompt", "sampler"}


@pytest.mark.parametrize(
    "said_wrongly",
    [
        {"seed": True, "steps": [1], "cfg_scale": "nan", "model": 5, "loras": "x"},
        {
            "seed": 1.5,
            "steps": -1,
            "cfg_scale": 1e999,
            "model": {"name": {}},
            "loras": [None, 3, {"model": []}],
        },
        {
            "seed": "9" * 5000,
            "steps": 10**30,
            "cfg_scale": {},
            "model": [],
            "loras": [{"model": {"name": "  "}}],
        },
    ],
)
def test_values_of_another_type_are_not_said(said_wrongly):
    found = said(with_texts({"invokeai_metadata": json.dumps({"positive_prompt": "p", **said_wrongly})}))

    assert (found.prompt, found.seed, found.steps, found.guidance) == ("p", None, None, None)
    assert (found.model, found.loras) == (None, ())


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
def test_a_packed_text_that_unpacks_to_more_than_a_megabyte_is_refused(kind):
    bomb = packed_text(kind, "parameters", b"a" * 30_000_000)

    with pytest.raises(ImageRefused) as caught:
        normalise(insert_before_data(saved(PIXELS, "PNG"), bomb))

    assert caught.value.code == "decompression-bomb"


@pytest.mark.parametrize(
    "data",
    [
        with_hidden("a" * 3_000_000, "pngcomp"),  # gzip that unpacks to more than a block may hold
        with_hidden("a", "pnginfo", bits=2**32 - 1),
        with_hidden("", "pnginfo"),
        with_hidden("text of no writer", "rgbinfo"),
    ],
)
def test_hidden_bits_that_promise_more_than_there_is_say_nothing(data):
    began = time.process_time()

    assert normalise(data).declared is None
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "text",
    [
        "a" * 900_000,
        "x\n" + "key: " * 9_000,
        "x\n" + 'ab:"' * 12_000,
        "x\n" + "ab: \\" * 9_000,
        "x\n" + " " * 49_000,
        "x\n" + "w" * 49_000,
        "x\n" + 'ab: "' + '\\"' * 20_000,
        "\n" * 900_000,
        "<lora:" * 100_000 + "\nSteps: 1, Seed: 2, Size: 8x8",
        "<lora:a" * 30_000 + "\nSteps: 1, Seed: 2, Size: 8x8",
    ],
)
def test_no_text_takes_long(text):
    data = with_texts({"parameters": text})
    began = time.process_time()

    normalise(data)

    assert time.process_time() - began < 2


def test_a_record_comes_back_as_it_was_and_damaged_ones_are_refused():
    found = said(with_texts({"parameters": A1111}))

    assert declared_from(json.loads(json.dumps(found.as_json()))) == found
    assert declared_from(None) is None
    for wrong in ([], {"source": 3}, {"source": "x", "loras": {}}, {"source": "x", "cut": 1}):
        with pytest.raises(ValueError):
            declared_from(wrong)
