"""The path of somebody with a kohya folder, a checkpoint in one file, a LoRA and a picture from A1111.

And training sets in other containers, which give the same index.
"""

import hashlib
import io
import json
import tarfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from diffusers import DiffusionPipeline
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner

from app.rounding import Rounding
from das.errors import EvidenceError
from das.evidence.recompute import recompute
from das.index import AttributionIndex
from das.prompts import PROMPT_TOO_LONG
from das.query import register as register_query
from index_build.cli import register
from tests.browser.conftest import Site
from tests.das import families, single_files
from tests.index_build.kohya import save_lora

runner = CliRunner()
COUNT = 6


@pytest.fixture(scope="module")
def app() -> typer.Typer:
    cli = typer.Typer()
    register(cli)
    register_query(cli)
    return cli


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What such a user has: `base`, `model.safetensors`, `style.safetensors` and `img`, and nothing else."""
    folder = tmp_path_factory.mktemp("own")
    families.make_stable_diffusion(folder / "base")
    single_files.write(DiffusionPipeline.from_pretrained(folder / "base"), folder / "model.safetensors")
    facts = {"10_sks cat": {"n_repeats": 10, "img_count": 3}, "3_dog": {"n_repeats": 3, "img_count": 3}}
    save_lora(folder / "style.safetensors", 0, text=True, ss_dataset_dirs=json.dumps(facts))
    for row, (picture, caption) in enumerate(zip(*families.photographs(COUNT), strict=True)):
        place = folder / "img" / ("10_sks cat" if row < 3 else "3_dog")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{row}.png")
        if row != 3:
            (place / f"{row}.txt").write_text(caption)
    return folder


def run(app: typer.Typer, *arguments: str | Path) -> str:
    done = runner.invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    return done.output


def built(app: typer.Typer, own: Path, works: Path, out: Path, *options: str | Path) -> str:
    always = (
        "--timesteps",
        "2",
        "--dimension",
        "64",
        "--probe",
        "loss",
        "--references",
        "0",
        "--no-screening",
    )
    model = ("--model", own / "model.safetensors", "--config", own / "base")
    return run(app, "build", *model, "--works", works, "--out", out, *always, *options)


def generation(own: Path, path: Path) -> Path:
    """A picture that says, as A1111's do, which prompt, seed, model and LoRA made it; the model is another."""
    hashed = hashlib.sha256((own / "style.safetensors").read_bytes()).hexdigest()[:12]
    text = (
        "a photograph of a cat <lora:style:1>\nNegative prompt: blurry\nSteps: 20, Sampler: Euler, Seed: 7, Size:"
        f' 32x32, Model hash: 0123456789, Model: another, Lora hashes: "style: {hashed}"'
    )
    info = PngInfo()
    info.add_text("parameters", text)
    Image.fromarray(families.photographs(1)[0][0]).save(path, pnginfo=info)
    return path


def test_kohya_folder_single_file_lora_and_a1111_picture(app, own, tmp_path):
    lora = own / "style.safetensors"
    inspected = json.loads(run(app, "works", "inspect", own / "img", "--json"))
    assert (inspected["format"], inspected["repeats"]) == ("kohya", {"3": 3, "10": 3})
    said = " ".join(
        built(app, own, own / "img", tmp_path / "index", "--lora", lora, "--creator-from", "folder").split()
    )
    assert "6 works, read as kohya" in said
    assert "repeats: 3 × 3, 3 × 10" in said
    assert "changes the text: text_encoder (1 layers), loaded" in said
    assert "Disagrees" not in said
    index = AttributionIndex.open(tmp_path / "index")
    assert index.works.column("repeats") == [10, 10, 10, 3, 3, 3]
    assert index.works.column("prompt")[3] == "dog"
    assert set(index.works.creators) == {"sks cat", "dog"}
    assert "**Prompts**: 6 of 6 works have one" in index.card
    picture = generation(own, tmp_path / "generation.png")
    answer = json.loads(run(app, "query", picture, "--index", tmp_path / "index", "--json"))
    assert answer["declared"]["prompt"].startswith("a photograph of a cat")
    assert answer["declared"]["seed"] == 7
    told = " ".join([answer["summary"], *answer["notes"]])
    assert "another" in json.dumps(answer)
    assert "prompt" in told
    assert sum(work["share"] for work in answer["works"]) == pytest.approx(1)


def test_the_service_answers_from_that_index(app, own, tmp_path):
    built(app, own, own / "img", tmp_path / "index", "--lora", own / "style.safetensors")
    picture = generation(own, tmp_path / "generation.png")
    (tmp_path / "samples").mkdir()
    site = Site(tmp_path, tmp_path / "index", tmp_path / "samples")
    try:
        response = httpx.post(
            f"{site.url}/v1/attributions",
            files={"image": picture.open("rb")},
            headers={"Prefer": "wait=60"},
            timeout=90,
        )
        report = httpx.get(site.url + response.json()["links"]["report"], timeout=30)
    finally:
        site.stop()
    answer = response.json()
    assert (response.status_code, answer["state"]) == (200, "succeeded"), answer
    assert answer["prompt"].startswith("a photograph of a cat")
    assert answer["seed"] == 7
    assert answer["input"]["declared"]["tool"] == "AUTOMATIC1111 or a fork"
    asked = json.loads(run(app, "query", picture, "--index", tmp_path / "index", "--json"))
    assert [work["work_id"] for work in answer["works"]] == [work["work_id"] for work in asked["works"]]
    shares = [work["share"] for work in asked["works"]]
    assert [work["share"] for work in answer["works"]] == pytest.approx(shares, abs=1e-3)

    # Whoever has the report, the picture and the index finds the same again, and nobody finds another answer.
    document, index = report.json(), AttributionIndex.open(tmp_path / "index")
    again = recompute(document["report"], index, picture)
    assert again.agrees, again.differences
    assert again.works == len(answer["works"])
    places = document["report"]["answer"]["works"]
    # Of works that aren't named it says so, and never that they differ.
    for hidden in ([0], [1, 3], range(len(places))):
        nameless = deepcopy(document["report"])
        for number, place in enumerate(hidden):
            nameless["answer"]["works"][place]["work_id"] = f"hidden_{number + 1}"
        found = recompute(nameless, index, picture)
        assert found.agrees, found.differences
        assert found.works == len(places) - len(hidden)
        assert found.not_compared == tuple(
            f"hidden_{number + 1}, rank {place + 1}, isn't named in the report, so it can't be compared."
            for number, place in enumerate(hidden)
        )
    nameless["answer"]["works"][0]["work_id"] = places[-1]["work_id"]
    assert not recompute(nameless, index, picture).agrees
    screened = deepcopy(document["report"])
    screened["question"]["candidate_works"] = [place["work_id"] for place in places[:3]] + ["hidden_1"]
    del screened["answer"]["works"][3:]
    assert recompute(screened, index, picture).agrees
    # Where no candidate is named, there is nothing to compute.
    nobody = deepcopy(screened)
    nobody["question"]["candidate_works"] = [f"hidden_{number}" for number in range(1, 5)]
    for number, place in enumerate(nobody["answer"]["works"], 1):
        place["work_id"] = f"hidden_{number}"
    found = recompute(nobody, index, picture)
    assert (found.agrees, found.works, len(found.not_compared)) == (True, 0, 3)
    # Without scores, shares are held against what they were rounded to, or what they are below.
    rounding = Rounding.by(0.03, sorted(place["share"] for place in places)[2])
    assert rounding is not None
    rounded = deepcopy(document["report"])
    told = [rounding.work(place, None) for place in places]
    assert {place["share"] is None for place in told} == {True, False}
    rounded["answer"] |= {"works": told, "rounding": rounding.model_dump()}
    found = recompute(rounded, index, picture)
    assert found.agrees, found.differences
    assert (found.works, found.by_share, found.not_compared) == (len(places), len(places), ())
    told[0]["share"] += 0.06
    assert "had the share" in recompute(rounded, index, picture).differences[0]
    told[0]["share"], told[-1]["below"] = told[0]["share"] - 0.06, places[-1]["share"] / 2
    assert "had a share below" in recompute(rounded, index, picture).differences[0]
    # Of candidates that aren't all named, shares aren't the report's.
    told[-1]["below"] = rounding.floor
    rounded["question"]["candidate_works"] = [place["work_id"] for place in places] + ["hidden_1"]
    found = recompute(rounded, index, picture)
    assert found.agrees, found.differences
    assert (found.works, len(found.not_compared)) == (0, len(places))
    assert all("has no score in the report" in line for line in found.not_compared)
    for part, why in (("picture", "doesn't tell its picture"), ("settings", "with a prompt or a seed")):
        handed_on = {**document["report"], "shared": {"left_out": [part], "works": None}}
        with pytest.raises(EvidenceError, match=why):
            recompute(handed_on, index, picture)
    places[0]["work_id"], places[-1]["work_id"] = places[-1]["work_id"], places[0]["work_id"]
    assert not recompute(document["report"], index, picture).agrees
    with pytest.raises(EvidenceError, match="isn't the picture of the report"):
        recompute(document["report"], index, own / "img" / "3_dog" / "4.png")


def containers(own: Path, folder: Path) -> dict[str, Path]:
    """The same pictures and captions as a folder, a tar and a parquet."""
    pictures, captions = families.photographs(COUNT)
    encoded = []
    for picture in pictures:
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "PNG")
        encoded.append(stream.getvalue())
    (folder / "files").mkdir(parents=True)
    lines = []
    for row, (data, caption) in enumerate(zip(encoded, captions, strict=True)):
        (folder / "files" / f"{row}.png").write_bytes(data)
        lines.append(json.dumps({"file_name": f"{row}.png", "text": caption}))
    (folder / "files" / "metadata.jsonl").write_text("\n".join(lines))
    with tarfile.open(folder / "works.tar", "w") as archive:
        for row, (data, caption) in enumerate(zip(encoded, captions, strict=True)):
            for name, content in ((f"{row}.png", data), (f"{row}.txt", caption.encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    rows: dict[str, Any] = {"image": [{"bytes": data, "path": None} for data in encoded], "text": captions}
    pq.write_table(pa.table(rows), folder / "works.parquet")
    return {"files": folder / "files", "tar": folder / "works.tar", "parquet": folder / "works.parquet"}


def test_an_index_of_a_tar_or_a_parquet_is_that_of_the_same_files(app, own, tmp_path):
    features = {}
    for name, works in containers(own, tmp_path / "works").items():
        built(app, own, works, tmp_path / name, "--shard-size", "2")
        index = AttributionIndex.open(tmp_path / name)
        assert index.works.column("prompt") == families.photographs(COUNT)[1]
        files = sorted((tmp_path / name / "features").rglob("*.npy"))
        features[name] = (index.works.column("digest"), [np.load(file) for file in files])
    for name in ("tar", "parquet"):
        assert features[name][0] == features["files"][0]
        for ours, theirs in zip(features[name][1], features["files"][1], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_text_model_whose_works_have_no_prompt_is_told_loudly(app, own, tmp_path):
    for row, picture in enumerate(families.photographs(3)[0]):
        (tmp_path / "plain").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "plain" / f"{row}.png")
    said = " ".join(built(app, own, tmp_path / "plain", tmp_path / "index").split())
    assert "not one of the works has a prompt" in said
    assert "NONE of the works has one" in AttributionIndex.open(tmp_path / "index").card


def test_prompts_that_are_cut_are_told_in_the_build_the_card_and_the_answer(app, own, tmp_path):
    words = ["cat"] * 100  # a token each
    works, index = tmp_path / "long", tmp_path / "index"
    works.mkdir()
    for row, picture in enumerate(families.photographs(3)[0]):
        Image.fromarray(picture).save(works / f"{row}.png")
        (works / f"{row}.txt").write_text(" ".join([*words[: 100 if row else 75], *(["dog"] * row)]))
    told = "2 of 3 works have a prompt that is longer than the model takes: only its first 75 tokens reach it"
    assert told in " ".join(built(app, own, works, index).split())
    assert told in AttributionIndex.open(index).card
    answers = {
        count: json.loads(
            run(
                app, "query", works / "0.png", "--index", index, "--prompt", " ".join(words[:count]), "--json"
            )
        )
        for count in (75, 76)
    }
    note = PROMPT_TOO_LONG.format(tokens=75)
    assert note not in answers[75]["notes"]
    assert note in answers[76]["notes"]


def test_creators_from_folders_of_a_tar_are_refused(app, own, tmp_path):
    works = containers(own, tmp_path / "works")
    for name in ("tar", "parquet"):
        done = runner.invoke(app, ["works", "inspect", str(works[name]), "--creator-from", "folder"])
        assert "there are no folders" in str(done.exception)


def test_inspect_shows_people_the_first_rows(app, own):
    shown = run(app, "works", "inspect", own / "img")
    assert "6 works, read as kohya" in shown
    assert "10_sks cat/0.png" in shown


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"tdm": "maybe"}, "no rights signal known here"),
        ({"rights_holder": "Ada 60%; Eve 60%"}, "120"),
        ({"X-Robots-Tag": "noai, max-image-preview:large"}, None),
    ],
)
def test_inspect_ends_where_a_build_would_for_rights(app, tmp_path, columns, said):
    Image.fromarray(families.photographs(1)[0][0]).save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", **columns}))
    done = runner.invoke(app, ["works", "inspect", str(tmp_path)])
    assert said in str(done.exception) if said else done.exit_code == 0
