"""Works come and go where a LoRA is attributed, where SSCD finds copies, where held-out pictures were measured."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from das.attribution import Attributor
from das.config import BuildConfig, ClipSpec
from das.copies import CopyFinder
from das.errors import BuildError
from das.index import AttributionIndex
from das.sscd import Sscd
from index_build.build import build
from index_build.changing import add, remove
from index_build.held_out import FEWEST
from index_build.progress import QuietReporter
from tests.conftest import make_picture, make_works
from tests.das import families
from tests.das.sscd_files import save as save_sscd
from tests.index_build.kohya import save_lora
from tests.index_build.synthetic import dampings_of, fix_dampings

WORKS = 9
GONE = [1, 5]


class Told(QuietReporter):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, message: str) -> None:
        self.said.append(message)


def write_works(folder: Path, rows: list[int]) -> Path:
    """Photographs with prompts, of which every third was trained on twice."""
    folder.mkdir()
    pictures, prompts = families.photographs(WORKS)
    lines = []
    for row in rows:
        Image.fromarray(pictures[row]).save(folder / f"{row}.png")
        lines.append({"file_name": f"{row}.png", "prompt": prompts[row], "repeats": 2 if row % 3 == 0 else 1})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def scores(index: AttributionIndex, pictures: list[np.ndarray], prompts: list[str]) -> dict[str, np.ndarray]:
    """By work, the scores of each picture."""
    answers = Attributor(index).attribute_batch(pictures, prompts=prompts, top_k=len(index))
    return {
        work_id: np.array(
            [next(one.score for one in answer.works if one.work_id == work_id) for answer in answers]
        )
        for work_id in index.works.column("id")
    }


def agree(version: AttributionIndex, fresh: AttributionIndex) -> None:
    pictures, prompts = families.photographs(WORKS)
    ours, theirs = (scores(index, pictures[:4], prompts[:4]) for index in (version, fresh))
    assert ours.keys() == theirs.keys()
    largest = np.max([*theirs.values()], 0)
    for digest, values in theirs.items():
        np.testing.assert_allclose(ours[digest] / largest, values / largest, atol=0.01)


def test_under_loras_with_prompts_a_version_is_a_fresh_build(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    families.make_stable_diffusion(tmp_path / "base")
    loras = (
        f"{save_lora(tmp_path / 'style.safetensors', 0, text=True)}:0.8",
        str(save_lora(tmp_path / "dora.safetensors", 1, dora=True)),
    )
    options: dict[str, Any] = {
        "name": "loras",
        "model": str(tmp_path / "base"),
        "timesteps": 2,
        "dimension": 64,
        "probes": ("loss",),
        "shard_size": 4,
        "clip": ClipSpec(directory=tiny_clip),
        "lora": loras,
    }
    whole = write_works(tmp_path / "works", [*range(WORKS)])
    rest = write_works(tmp_path / "rest", [row for row in range(WORKS) if row not in GONE])
    build(BuildConfig(**options, works=whole), tmp_path / "index")
    index = AttributionIndex.open(tmp_path / "index")
    # Other prompts would give other features, which are compared with those stored before a work is taken out.
    remove(index, np.array(GONE), tmp_path / "without")
    without = AttributionIndex.open(tmp_path / "without")
    assert without.verify().ok
    assert without.manifest.model == index.manifest.model
    config = BuildConfig(**options, works=rest)
    with monkeypatch.context() as patched:
        fix_dampings(patched, config, dampings_of(index.manifest.kernels))
        build(config, tmp_path / "fresh")
    agree(without, AttributionIndex.open(tmp_path / "fresh"))
    assert without.works.column("prompt") == [
        prompt for row, prompt in enumerate(index.works.column("prompt")) if row not in GONE
    ]
    add(without, whole, tmp_path / "back", again=True)
    back = AttributionIndex.open(tmp_path / "back")
    agree(back, index)
    assert back.works.column("repeats")[-2:] == [index.works.column("repeats")[row] for row in GONE]
    assert back.loras == index.loras


def test_sscd_finds_copies_of_what_came_and_none_of_what_went(
    tiny_model: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    make_works(tmp_path / "works", WORKS)
    sscd = save_sscd(tmp_path / "sscd.pt")
    config = BuildConfig(
        name="sscd",
        model=str(tiny_model),
        works=tmp_path / "works",
        timesteps=(100, 500),
        dimension=32,
        shard_size=4,
        clip=ClipSpec(directory=tiny_clip),
        sscd=sscd,
    )
    build(config, tmp_path / "index")
    index = AttributionIndex.open(tmp_path / "index")
    remove(index, np.array(GONE), tmp_path / "without")
    without = AttributionIndex.open(tmp_path / "without")
    kept = np.delete(np.arange(WORKS), GONE)
    assert without.sscd_embeddings is not None
    assert index.sscd_embeddings is not None
    np.testing.assert_array_equal(without.sscd_embeddings, np.asarray(index.sscd_embeddings)[kept])
    (tmp_path / "further").mkdir()
    Image.fromarray(make_picture(70)).save(tmp_path / "further" / "70.png")
    add(without, tmp_path / "further", tmp_path / "more")
    more = AttributionIndex.open(tmp_path / "more")
    assert more.verify().ok
    assert more.sscd_embeddings is not None
    # The file is found from where the version is, too.
    embedder = Sscd.load(Path(str(more.sscd_source)))
    np.testing.assert_allclose(more.sscd_embeddings[-1], embedder.embed(make_picture(70)), atol=1e-3)
    turned = make_picture(70)[::-1, ::-1].copy()
    found = CopyFinder(more, embedder).find(turned)
    assert found is not None
    assert [(match.row, match.method) for match in found.matches][:1] == [(len(more) - 1, "sscd")]

    save_sscd(tmp_path / "sscd.pt", scale=2.0)
    shutil.rmtree(tmp_path / "more")
    with pytest.raises(BuildError, match="isn't the SSCD model that"):
        add(without, tmp_path / "further", tmp_path / "more")


def test_what_held_out_pictures_told_stays_for_creators_whose_works_do(
    tiny_model: Path, tiny_clip: Path, tmp_path: Path
) -> None:
    def pictures(name: str, numbers: range) -> Path:
        (tmp_path / name).mkdir()
        rows = ["file_name,creator"]
        for number in numbers:
            Image.fromarray(make_picture(number)).save(tmp_path / name / f"{number}.png")
            rows.append(f"{number}.png,{'Ada' if number % 2 else 'Bert'}")
        (tmp_path / name / "metadata.csv").write_text("\n".join(rows))
        return tmp_path / name

    config = BuildConfig(
        name="held-out",
        model=str(tiny_model),
        works=pictures("works", range(24)),
        held_out=pictures("held-out", range(100, 100 + FEWEST)),
        timesteps=(100, 500),
        dimension=32,
        clip=ClipSpec(directory=tiny_clip),
    )
    build(config, tmp_path / "index")
    index = AttributionIndex.open(tmp_path / "index")
    before = index.manifest.held_out
    assert before is not None
    assert {one.name for one in before.creators} == {"Ada", "Bert"}
    # What is held out is no work, whatever folder it comes in.
    further = pictures("further", range(60, 62))
    shutil.copy(tmp_path / "held-out" / "103.png", further / "103.png")
    with pytest.raises(BuildError, match=r"1 of the held-out pictures are works too, such as .*103\.png"):
        add(index, further, tmp_path / "more")
    (tmp_path / "held-out" / "103.png").unlink()
    told = Told()
    assert add(index, further, tmp_path / "more", reporter=told).changed == 3
    assert any("isn't known whether some of these works are among them" in said for said in told.said)
    ada = index.works.creators.index("Ada")
    remove(index, np.array([ada]), tmp_path / "without")
    without = AttributionIndex.open(tmp_path / "without")
    after = without.manifest.held_out
    assert after is not None
    assert [one for one in before.creators if one.name == "Bert"] == [*after.creators]
    assert (after.gap, after.decides_damping) == (before.gap, before.decides_damping)
    # The same λ, whatever decided it.
    for ours, theirs in zip(without.manifest.kernels, index.manifest.kernels, strict=True):
        assert ours.damping == theirs.damping
    assert "| Bert |" in without.card
    assert "| Ada |" not in without.card
