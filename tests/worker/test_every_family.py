"""Every model family the whole way: LoRA tuned on photographs, index built, question asked, planted work first.

The questions are the planted works themselves, so this holds the way together; it doesn't measure influence.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from das.config import BuildConfig, ClipSpec
from das.images import encode_png
from das.index import AttributionIndex
from das.models.loading import adapter_for, load_pipeline
from index_build.build import build
from jobs.settings import Settings
from tests.das import families
from tests.worker.test_engine import question
from worker.engine import AttributionEngine

WORKS, PLANTED, OFTEN = 16, (5, 11), 30


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_question_to_a_lora_of_this_family_finds_the_planted_work(
    family: str, tmp_path: Path, tiny_clip: Path
) -> None:
    from PIL import Image

    families.FAMILIES[family](tmp_path / "base")
    source = str(tmp_path / "base")
    pipeline = load_pipeline(source, adapter_for(source))
    pictures, prompts = families.photographs(WORKS)
    repeats = [OFTEN if row in PLANTED else 1 for row in range(WORKS)]
    wrapped = families.finetune_lora(pipeline, pictures, prompts, repeats, 40, 0)
    families.save_lora(pipeline, wrapped, tmp_path / "lora")
    works = tmp_path / "works"
    works.mkdir()
    lines = ["file_name,prompt,repeats"]
    for row, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
        Image.fromarray(picture).save(works / f"{row:03d}.png")
        lines.append(f'{row:03d}.png,"{prompt}",{repeats[row]}')
    (works / "metadata.csv").write_text("\n".join(lines))
    config = BuildConfig(
        name="family",
        model=source,
        lora=str(tmp_path / "lora"),
        works=works,
        timesteps=(100, 300, 500, 700, 900),
        dimension=256,
        methods=("das-block", "trak", "journey-trak"),
        clip=ClipSpec(directory=tiny_clip),
    )
    build(config, tmp_path / "index")
    index = AttributionIndex.open(tmp_path / "index")
    assert index.manifest.model.conditional
    assert index.manifest.model.attributed_parameters < 20_000
    # A finished index is found again, LoRA and all.
    assert build(config, tmp_path / "index").state == "present"

    engine = AttributionEngine(
        Settings(index_dir=tmp_path / "index", data_dir=tmp_path / "data", torch_threads=1)
    )
    for row in PLANTED:
        job = question(index.id, 3, prompt=prompts[row])
        (result,) = engine.run([job], [engine.decode(encode_png(pictures[row]))], lambda *step: None)
        assert result["works"][0]["row"] == row
    unprompted = question(index.id, WORKS)
    told = {}
    for name, job in (("with", question(index.id, WORKS, prompt=prompts[5])), ("without", unprompted)):
        (result,) = engine.run([job], [pictures[5]], lambda *step: None)
        told[name] = np.array([work["score"] for work in result["works"]])
    assert not np.allclose(told["with"], told["without"], rtol=1e-3)
    for method, seed in (("trak", None), ("journey-trak", None), ("journey-trak", 7)):
        job = question(index.id, 3, prompt=prompts[5], method=method, seed=seed)
        (result,) = engine.run([job], [pictures[5]], lambda *step: None)
        assert len(result["works"]) == 3
    shutil.rmtree(tmp_path / "lora")
    with pytest.raises(Exception, match="lora"):
        build(config, tmp_path / "another")
