"""The hashes of checkpoints and LoRAs that other programs name them by."""

import hashlib
import json

import pytest

from das.manifest import WeightFileRecord
from das.weight_files import hashed, weight_files


def safetensors(header: dict[str, object], tensors: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors


def test_a_safetensors_file_by_its_bytes_its_tensors_and_the_old_piece(tmp_path):
    tensors = bytes(range(256)) * 8_000  # two megabytes
    data = safetensors({"__metadata__": {"ss_seed": "1"}}, tensors)
    path = tmp_path / "storm.safetensors"
    path.write_bytes(data)

    assert hashed(path, "lora") == WeightFileRecord(
        role="lora",
        name="storm.safetensors",
        sha256=hashlib.sha256(data).hexdigest(),
        tensors_sha256=hashlib.sha256(tensors).hexdigest(),
        old_hash=hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8],
    )


def test_notes_in_the_header_change_the_files_hash_and_not_the_tensors(tmp_path):
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    one.write_bytes(safetensors({}, b"tensors"))
    other.write_bytes(safetensors({"__metadata__": {"ss_output_name": "x"}}, b"tensors"))

    a, b = hashed(one, "lora"), hashed(other, "lora")

    assert a.sha256 != b.sha256
    assert a.tensors_sha256 == b.tensors_sha256 == hashlib.sha256(b"tensors").hexdigest()
    assert a.old_hash is None  # too short for the piece


@pytest.mark.parametrize("data", [b"", b"\1", b"\xff" * 20])
def test_another_or_a_damaged_file_has_its_own_hash_alone(tmp_path, data):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)

    found = hashed(path, "model")

    assert (found.sha256, found.tensors_sha256) == (hashlib.sha256(data).hexdigest(), None)


def test_a_pickle_has_no_tensors_of_its_own(tmp_path):
    path = tmp_path / "x.ckpt"
    path.write_bytes(b"\0" * 100)

    assert hashed(path, "model").tensors_sha256 is None


def test_what_is_a_file_is_hashed_and_pipelines_and_hub_ids_are_not(tmp_path):
    pipeline = tmp_path / "pipeline"
    (pipeline / "unet").mkdir(parents=True)
    (pipeline / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(safetensors({}, b"a"))
    adapter = tmp_path / "lora"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(safetensors({}, b"b"))
    (adapter / "adapter_config.json").write_text("{}")
    single = tmp_path / "single.safetensors"
    single.write_bytes(safetensors({}, b"c"))

    assert weight_files(str(pipeline)) == weight_files("org/model", ["org/lora"]) == ()
    assert [(f.role, f.name) for f in weight_files(str(single), [str(adapter), str(single)])] == [
        ("model", "single.safetensors"),
        ("lora", "adapter_model.safetensors"),
        ("lora", "single.safetensors"),
    ]
