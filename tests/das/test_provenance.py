"""What is taken of a picture's metadata, and how the model that it names is held against an index's."""

from pathlib import Path

import pytest

from das.images import Declared, DeclaredLora
from das.manifest import LoraRecord, Manifest, WeightFileRecord, read_manifest
from das.provenance import (
    GENERATED,
    MAX_SEED,
    PROMPT_BRACKETS,
    PROMPT_CUT,
    PROMPT_OVERRULED,
    SEED_TAKEN,
    SEED_TOO_LARGE,
    Taken,
    compare_model,
    defaults,
    notes_of_declared,
)

BASE = WeightFileRecord(
    role="model",
    name="v1-5.safetensors",
    sha256="6ce0161689" + 54 * "0",
    tensors_sha256="77" * 32,
    old_hash="81761151",
)
LORA = WeightFileRecord(role="lora", name="storm.safetensors", sha256="ab" * 32, tensors_sha256="cd" * 32)


@pytest.fixture(scope="module")
def manifest(tiny_index: Path) -> Manifest:
    return read_manifest(tiny_index)


def of(
    manifest: Manifest, *files: WeightFileRecord, source: str = "/m/v1-5", lora: str | None = None
) -> Manifest:
    loras = () if lora is None else (LoraRecord(source=lora, fingerprint="0"),)
    model = manifest.model.model_copy(update={"source": source, "loras": loras})
    return manifest.model_copy(update={"model": model, "weight_files": files})


def said(**fields) -> Declared:
    return Declared("PNG text parameters", **fields)


# --- prompt and seed ---


def test_what_the_question_leaves_out_is_taken():
    declared = said(prompt="a boat <lora:storm:1>", seed=5)

    assert defaults(declared, None, None) == Taken("a boat", 5, ("prompt", "seed"))
    assert defaults(None, None, None) == Taken(None, None, ())
    assert defaults(said(tool="x"), None, None) == Taken(None, None, ())


def test_what_the_question_says_wins_an_empty_prompt_and_seed_0_too():
    declared = said(prompt="a boat", seed=5)

    assert defaults(declared, "a car", 0) == Taken("a car", 0, ())
    assert defaults(declared, "", None) == Taken("", 5, ("seed",))


def test_a_seed_beyond_a_questions_is_not_taken_and_that_is_said():
    declared = said(seed=MAX_SEED + 1)

    assert defaults(declared, None, None).fields == ()
    assert notes_of_declared(declared, (), prompt=None, conditional=True, seeded=True) == [SEED_TOO_LARGE]
    assert notes_of_declared(declared, (), prompt=None, conditional=True, seeded=False) == []


def test_the_notes_say_what_was_taken_and_what_was_overruled():
    declared = said(prompt="a boat", seed=5, cut=("prompt",), ai_generated=True)

    taken = notes_of_declared(declared, ("prompt", "seed"), prompt="a boat", conditional=True, seeded=True)
    overruled = notes_of_declared(declared, (), prompt="a car", conditional=True, seeded=False)
    unused = notes_of_declared(declared, ("prompt",), prompt="a boat", conditional=False, seeded=False)

    assert "PNG text parameters" in taken[0]
    assert taken[1:] == [PROMPT_CUT, SEED_TAKEN, GENERATED]
    assert overruled == [PROMPT_OVERRULED, GENERATED]
    assert unused == [GENERATED]


def test_brackets_in_a_prompt_that_is_taken_are_told():
    declared = said(prompt="a (red:1.2) [boat|car]")
    asked = defaults(declared, None, None)
    assert asked.prompt == "a red [boat|car]"

    taken = notes_of_declared(declared, asked.fields, prompt=asked.prompt, conditional=True, seeded=False)
    overruled = notes_of_declared(declared, (), prompt="a car", conditional=True, seeded=False)

    assert taken[1:] == [PROMPT_BRACKETS]
    assert overruled == [PROMPT_OVERRULED]


# --- the model ---


@pytest.mark.parametrize("digest", ["6ce0161689", "6ce01616", BASE.sha256, "81761151", "777777777777"])
def test_a_hash_of_the_indexs_file_is_the_same_model_whatever_the_names(manifest, digest):
    claim = compare_model(said(model="other name", model_hash=digest), of(manifest, BASE))

    assert (claim.verdict, claim.sentence) == ("same", None)


def test_another_hash_is_another_model_and_told_first(manifest):
    claim = compare_model(said(model="v1-5", model_hash="0011223344"), of(manifest, BASE))

    assert claim.verdict == "other"
    assert claim.sentence is not None
    assert claim.sentence.startswith(
        "The picture says that it was made by another model file (“v1-5”, hash 0011"
    )
    assert "“v1-5.safetensors”, hash 6ce0161689" in claim.sentence


def test_names_alone_are_told_as_names_where_they_plainly_differ(manifest):
    other = compare_model(said(model="juggernautXL", model_hash="0011223344"), of(manifest))
    alike = compare_model(said(model="v1-5-pruned-emaonly.safetensors"), of(manifest))

    assert other.verdict == alike.verdict == "unknown"
    assert other.sentence is not None
    assert "made by “juggernautXL”; this index is of “v1-5”" in other.sentence
    assert alike.sentence is None
    assert compare_model(said(prompt="x"), of(manifest, BASE)).sentence is None


@pytest.mark.parametrize("digest", [LORA.sha256[:8], LORA.sha256[:12], str(LORA.tensors_sha256)[:12]])
def test_a_lora_is_known_by_the_hash_of_its_file_or_of_its_tensors(manifest, digest):
    loras = (DeclaredLora("renamed", digest), DeclaredLora("further", "0" * 10))

    claim = compare_model(said(loras=loras), of(manifest, LORA, lora="/l/storm.safetensors"))

    assert (claim.verdict, claim.sentence) == ("same", None)


def test_another_lora_is_told_by_hashes_by_names_and_where_the_index_has_none(manifest):
    loras = (DeclaredLora("calm", "0" * 10),)
    with_file = compare_model(said(loras=loras), of(manifest, LORA, lora="/l/storm.safetensors"))
    by_name = compare_model(said(loras=(DeclaredLora("calm"),)), of(manifest, lora="/l/storm.safetensors"))
    alike = compare_model(said(loras=(DeclaredLora("Storm_"),)), of(manifest, lora="/l/storm.safetensors"))
    none = compare_model(said(loras=loras), of(manifest, BASE))

    assert (with_file.verdict, by_name.verdict, alike.verdict, none.verdict) == ("other", *["unknown"] * 3)
    assert "by their hashes, none of them is this index's (“storm.safetensors”)" in str(with_file.sentence)
    assert "this index is of the LoRA “storm”. Those are names alone." in str(by_name.sentence)
    assert alike.sentence is None
    assert str(none.sentence).endswith("LoRA “calm”; this index is of a model without one.")


def test_the_same_base_with_another_lora_is_another_model(manifest):
    declared = said(model_hash="6ce0161689", loras=(DeclaredLora("calm", "0" * 10),))

    assert compare_model(declared, of(manifest, BASE, LORA, lora="/l/storm.safetensors")).verdict == "other"
