"""From LoRAs through a build to a question: what was loaded is told, kept, and loaded again to answer."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import save_file

from das.attribution import Attributor
from das.config import BuildConfig, ClipSpec
from das.errors import ModelError, SettingsError
from das.index import AttributionIndex
from das.loras import LoraChoice
from das.models import load_model
from index_build.build import build
from index_build.progress import QuietReporter
from tests.das import families
from tests.index_build.kohya import save_lora


class Heard(QuietReporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warnings: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "pipeline"
    families.make_stable_diffusion(folder)
    return folder


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four works in `2_cat`, with repeats and prompts."""
    folder = tmp_path_factory.mktemp("works")
    (folder / "2_cat").mkdir()
    lines = []
    for row, (picture, prompt) in enumerate(zip(*families.photographs(4), strict=True)):
        Image.fromarray(picture).save(folder / "2_cat" / f"{row}.png")
        lines.append(json.dumps({"file_name": f"2_cat/{row}.png", "prompt": prompt, "repeats": 2}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Pipelines with texts as wide as those of Stable Diffusion 1 and 2."""
    folder = tmp_path_factory.mktemp("versions")
    for width in (768, 1024):
        families.make_stable_diffusion(folder / str(width), width=width)
    return {width: folder / str(width) for width in (768, 1024)}


def config(base: Path, works: Path, clip: Path, *loras: str, **changes: Any) -> BuildConfig:
    options: dict[str, Any] = {
        "name": "loras",
        "model": str(base),
        "works": works,
        "timesteps": 2,
        "dimension": 64,
        "probes": ("loss",),
        "clip": ClipSpec(directory=clip),
    }
    return BuildConfig(**(options | changes), lora=loras)


def test_loras_go_from_a_build_to_an_answer(base, works, tiny_clip, tmp_path):
    style = save_lora(tmp_path / "style.safetensors", 0, text=True)
    dora = save_lora(tmp_path / "dora.safetensors", 1, dora=True)
    given = (f"{style}:0.8", str(dora))
    heard = Heard()
    build(config(base, works, tiny_clip, *given), tmp_path / "index", reporter=heard)
    assert any("LoRA on 2 layers" in line and "text_encoder (1 layers)" in line for line in heard.said)
    assert any("DoRA on 2 layers" in line for line in heard.said)
    index = AttributionIndex.open(tmp_path / "index")
    first, second = index.manifest.model.loras
    assert (first.weight, first.adapter, first.kinds, first.text_encoders) == (
        0.8,
        "lora1",
        {"LoRA": 2},
        {"text_encoder": 1},
    )
    assert (second.weight, second.kinds, second.text_encoders) == (1.0, {"DoRA": 2}, {})
    assert index.loras == (LoraChoice(str(style), 0.8), LoraChoice(str(dora)))
    matrices = 4 * 16 + 4 * 16 + 2 * 8
    assert index.manifest.model.attributed_parameters == matrices
    assert (
        "style.safetensors, weight 0.8, LoRA on 2 layers; it also changes text_encoder (1 layers)"
        in index.card
    )
    assert "the network's matrices alone" in index.card

    attributor = Attributor(index)
    own = load_model(str(base), lora=given)
    assert attributor.model.identity["digest"] == own.identity["digest"] == index.manifest.model.digest
    for row in range(4):
        picture = works / "2_cat" / f"{row}.png"
        prompt = index.works.row(row)["prompt"]
        assert attributor.attribute(picture, prompt=prompt, top_k=1).works[0].row == row

    apart = config(base, works, tiny_clip, *given, attributed="lora2")
    build(apart, tmp_path / "apart")
    alone = AttributionIndex.open(tmp_path / "apart").manifest.model
    assert (alone.attributed_parameters, alone.digest) == (4 * 16 + 2 * 8, index.manifest.model.digest)


HEADERS = [
    ({"ss_dataset_dirs": json.dumps({"2_cat": {"n_repeats": 2, "img_count": 4}})}, []),
    (
        {"ss_dataset_dirs": json.dumps({"2_cat": {"n_repeats": 7, "img_count": 9}})},
        [
            "trained on 9 pictures in '2_cat', and the works have 4",
            "repeated 7 times, and the works there 2 times",
        ],
    ),
    (
        {"ss_dataset_dirs": json.dumps({"3_dog": {"n_repeats": 3, "img_count": 4}})},
        ["trained on 4 pictures in '3_dog', 12 with their repeats; the works are 4, 8 with theirs"],
    ),
    (
        {
            "ss_dataset_dirs": json.dumps({"2_cat": {"n_repeats": 2, "img_count": 4}}),
            "ss_reg_dataset_dirs": json.dumps({"1_animal": {"n_repeats": 1, "img_count": 50}}),
        },
        ["trained on 50 regularisation pictures in '1_animal', a folder that the works don't have"],
    ),
    (
        {
            "ss_datasets": json.dumps(
                [{"subsets": [{"image_dir": "C:\\x\\2_cat", "img_count": 5, "num_repeats": 2}]}]
            )
        },
        ["trained on 5 pictures in '2_cat', and the works have 4"],
    ),
    ({"ss_num_train_images": "8"}, []),
    ({"ss_num_train_images": "400"}, ["trained on 400 pictures with their repeats"]),
    ({"ss_caption_dropout_rate": "0.1"}, ["caption dropout of 0.1, and --prompt-dropout is 0"]),
    ({"ss_base_model_version": "sd_v2_v"}, ["trained on sd_v2_v, and the base given predicts epsilon"]),
    (
        {"ss_base_model_version": "sd_v2_v", "modelspec.prediction_type": "v"},  # told once
        ["trained on sd_v2_v, and the base given predicts epsilon"],
    ),
    (
        {"ss_base_model_version": "sd_v1", "modelspec.prediction_type": "v", "ss_zero_terminal_snr": "True"},
        [
            "predict v_prediction (modelspec.prediction_type: v), and the base given predicts epsilon",
            "trained down to noise alone (ss_zero_terminal_snr), and the base's schedule leaves some",
        ],
    ),
    ({"modelspec.prediction_type": "epsilon", "ss_zero_terminal_snr": "False", "ss_clip_skip": "None"}, []),
    ({"modelspec.prediction_type": "x\x1b", "ss_zero_terminal_snr": "1", "ss_clip_skip": "0x2"}, []),
    ({"ss_clip_skip": "1"}, []),
    ({"ss_max_token_length": "75"}, []),
    ({"ss_max_token_length": "None"}, []),
    (
        {"ss_max_token_length": "225"},
        ["prompts of up to 225 tokens (ss_max_token_length), and of the works'"],
    ),
    (
        {"ss_clip_skip": "2"},
        ["the clip skip 2 (ss_clip_skip), and texts are taken from the last of the 2 layers"],
    ),
    ({"ss_clip_skip": "11"}, []),  # of 12 layers, the base has 2
    ({"ss_network_module": "networks.lora"}, []),
    ({"ss_network_module": "lycoris.kohya"}, []),
    (
        {"ss_network_module": "my.own\x1b[2J"},
        ["made by the module my.own\N{REPLACEMENT CHARACTER}[2J, which isn't known"],
    ),
    (
        {"ss_v2": "True", "ss_sd_model_hash": "IsADirectory", "ss_new_sd_model_hash": "NOFILE"},
        [],
    ),  # sizes don't tell
    ({"ss_dataset_dirs": "[" * 100_000, "ss_num_train_images": "\x1b[2J", "ss_datasets": '{"a":NaN}'}, []),
    ({"ss_dataset_dirs": json.dumps({"a": 3, "": {}, "b": {"n_repeats": "x", "img_count": 1e400}})}, []),
]


@pytest.mark.parametrize(("header", "expected"), HEADERS)
def test_what_a_header_says_otherwise_is_warned_of_before_the_build(
    base, works, tiny_clip, tmp_path, header, expected
):
    from das.models.lora import loras_of
    from index_build.inputs import read_digested_works
    from index_build.loras import lora_records

    lora = save_lora(tmp_path / "a.safetensors", 0, **header)
    model, heard = load_model(str(base), lora=str(lora)), Heard()
    assert len(loras_of(model.network)) == 1
    options = config(base, works, tiny_clip, str(lora))
    (record,) = lora_records(options, model, read_digested_works(works, heard), heard)
    assert len(record.remarks) == len(heard.warnings) == len(expected)
    for remark, warning, part in zip(record.remarks, heard.warnings, expected, strict=True):
        assert part in remark
        assert part in warning


def test_the_hash_of_a_single_file_is_compared(base, works, tmp_path):
    """With the SHA-256 of the whole file, or its beginning; else with A1111's old one, of a piece of the file."""
    from das.models.lora import loras_of
    from das.works import file_digest
    from index_build.inputs import read_digested_works
    from index_build.training_facts import disagreements

    checkpoint = tmp_path / "checkpoint.safetensors"
    content = bytes(range(256)) * 4_500
    checkpoint.write_bytes(content)
    sha, old = file_digest(checkpoint), hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
    new_key, old_key = "ss_new_sd_model_hash", "ss_sd_model_hash"
    headers = {
        "right": {new_key: sha},
        "wrong": {new_key: "0" * 64},
        "none": {new_key: ""},
        "a word": {new_key: "IsADirectory", old_key: "NOFILE"},
        "old": {old_key: old},
        "old wrong": {old_key: "deadbeef"},
        "new before old": {new_key: sha, old_key: "deadbeef"},
    }
    whole, found = read_digested_works(works, Heard()), {}
    for name, header in headers.items():
        lora = save_lora(tmp_path / f"{name}.safetensors", 0, **header)
        model = load_model(str(base), lora=str(lora))
        (loaded,) = loras_of(model.network)
        found[name] = disagreements(loaded, model, str(checkpoint), whole, 0.0)
        assert disagreements(loaded, model, str(base), whole, 0.0) == []  # a folder has no such hash
    assert "its base had the SHA-256 000000000000, and" in found.pop("wrong")[0]
    (told,) = found.pop("old wrong")
    assert "its base had the old hash deadbeef, and" in told
    assert told.endswith(f" has {old}")
    assert not any(found.values())


@pytest.mark.parametrize(
    ("width", "header", "told"),
    [
        (
            768,
            {"ss_v2": "True"},
            "trained on Stable Diffusion 2 (ss_v2: True), and the base given is Stable Diffusion 1",
        ),
        (768, {"ss_v2": "False"}, None),
        (1024, {"ss_v2": "True"}, None),
        (1024, {"ss_v2": "False"}, "trained on Stable Diffusion 1 (ss_v2: False)"),
        (
            1024,
            {"modelspec.architecture": "stable-diffusion-v1/lora"},
            "(modelspec.architecture: stable-diffusion-v1",
        ),
        (
            768,
            {"ss_base_model_version": "sd_v2"},
            "trained on Stable Diffusion 2 (ss_base_model_version: sd_v2)",
        ),
    ],
)
def test_stable_diffusion_2_under_a_lora_of_1_is_told_and_the_other_way_round(
    versions, works, tiny_clip, tmp_path, width, header, told
):
    """Both have self-attention of the same sizes, on which such LoRAs load without a word."""
    from index_build.inputs import read_digested_works
    from index_build.loras import lora_records

    lora = save_lora(tmp_path / "a.safetensors", 0, **header)
    model, heard = load_model(str(versions[width]), lora=str(lora)), Heard()
    options = config(versions[width], works, tiny_clip, str(lora))
    (record,) = lora_records(options, model, read_digested_works(works, heard), heard)
    assert len(record.remarks) == len(heard.warnings) == (told is not None)
    assert told is None or told in record.remarks[0]
    assert told is None or told in heard.warnings[0]


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ({}, []),
        ({"modelspec.prediction_type": "v", "ss_zero_terminal_snr": "True"}, []),
        (
            {"modelspec.prediction_type": "epsilon", "ss_zero_terminal_snr": "False"},
            [
                "predict epsilon (modelspec.prediction_type: epsilon), and the base given predicts v_prediction",
                "and the base's schedule ends in noise alone (rescale_betas_zero_snr)",
            ],
        ),
    ],
)
def test_a_lora_is_held_against_a_base_of_velocity_and_zero_terminal_snr(base, works, tmp_path, header, told):
    from das.models.lora import loras_of
    from index_build.inputs import read_digested_works
    from index_build.training_facts import disagreements, kept_facts

    pipeline = StableDiffusionPipeline.from_pretrained(base)
    pipeline.scheduler.register_to_config(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    pipeline.save_pretrained(tmp_path / "base")
    lora = save_lora(tmp_path / "a.safetensors", 0, **header)
    model = load_model(str(tmp_path / "base"), lora=str(lora))
    (loaded,) = loras_of(model.network)
    found = disagreements(loaded, model, str(tmp_path / "base"), read_digested_works(works, Heard()), 0.0)
    assert len(found) == len(told)
    assert all(part in remark for remark, part in zip(found, told, strict=True))
    assert kept_facts(loaded.metadata) == header


def test_sizes_that_do_not_fit_are_told_with_what_the_header_says(base, tmp_path):
    file = tmp_path / "a.safetensors"
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{name}.lora_down.weight": torch.ones(2, 1024), f"{name}.lora_up.weight": torch.ones(8, 2)}
    for header, said in [
        ({"ss_base_model_version": "sd_v2_v", "ss_v2": "True"}, "trained on sd_v2_v."),
        ({"ss_v2": "True"}, "trained on Stable Diffusion 2."),
        ({}, "another version of the model."),
    ]:
        save_file(tensors, file, metadata=header or None)
        with pytest.raises(
            ModelError, match=r"is 2 × 1024, and the layer that it is for needs 2 × 16"
        ) as refused:
            load_model(str(base), lora=str(file))
        assert str(refused.value).endswith(said)


def test_a_disagreement_is_in_the_report_the_manifest_and_the_card(base, works, tiny_clip, tmp_path):
    lora = save_lora(
        tmp_path / "a.safetensors", 0, ss_num_train_images="400", ss_network_module="networks.lora"
    )
    result = build(config(base, works, tiny_clip, str(lora)), tmp_path / "index")
    index = AttributionIndex.open(tmp_path / "index")
    (record,) = index.manifest.model.loras
    assert record.facts == {"ss_num_train_images": "400", "ss_network_module": "networks.lora"}
    assert "trained on 400 pictures" in record.remarks[0]
    assert result.report["loras"][0]["remarks"] == list(record.remarks)
    assert f"**Disagrees with its file**: {record.remarks[0]}" in index.card


@pytest.mark.parametrize(
    "header",
    [
        {"ss_base_model_version": "sdxl_base_v1-0"},
        {"ss_base_model_version": "flux1"},
        {"ss_network_module": "networks.lora_flux"},
        {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"},
    ],
)
def test_a_base_of_another_family_ends_the_build(base, works, tiny_clip, tmp_path, header):
    lora = save_lora(tmp_path / "a.safetensors", 0, **header)
    with pytest.raises(ModelError, match=r"is of the family stable-diffusion\. Give the base"):
        build(config(base, works, tiny_clip, str(lora)), tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_another_weight_is_another_index(base, works, tiny_clip, tmp_path):
    from das.errors import BuildError

    lora = save_lora(tmp_path / "a.safetensors", 0)
    build(config(base, works, tiny_clip, f"{lora}:0.8"), tmp_path / "index")
    assert build(config(base, works, tiny_clip, f"{lora}:0.8"), tmp_path / "index").state == "present"
    with pytest.raises(BuildError, match="the weights of --model"):
        build(config(base, works, tiny_clip, str(lora)), tmp_path / "index")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.safetensors", LoraChoice("a.safetensors")),
        ("a.safetensors:0.8", LoraChoice("a.safetensors", 0.8)),
        ("owner/name:-.5", LoraChoice("owner/name", -0.5)),
        ("C:\\loras\\a.safetensors", LoraChoice("C:\\loras\\a.safetensors")),
        ("C:\\loras\\a.safetensors:1.25", LoraChoice("C:\\loras\\a.safetensors", 1.25)),
        ("a:b:c", LoraChoice("a:b:c")),
    ],
)
def test_a_weight_is_a_number_behind_the_last_colon(text, expected):
    assert LoraChoice.parse(text) == expected
    assert LoraChoice.parse(str(expected)) == expected


def test_a_file_with_a_colon_and_a_number_is_that_file(tmp_path):
    (tmp_path / "a:2").write_bytes(b"")
    assert LoraChoice.parse(f"{tmp_path}/a:2") == LoraChoice(f"{tmp_path}/a:2")
    assert LoraChoice.parse(f"{tmp_path}/a:2:3") == LoraChoice(f"{tmp_path}/a:2", 3.0)


@pytest.mark.parametrize("text", ["", "a:0", "a:1e999", ":0.5"])
def test_a_weight_that_cannot_be_computed_with_is_refused(text):
    with pytest.raises(SettingsError, match="--lora is"):
        LoraChoice.parse(text)
