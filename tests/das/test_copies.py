"""Whether a picture is a copy of a work: verdicts against a loop over works, their words, older indexes."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from das import copies
from das.answer import NOT_IN_MODEL
from das.attribution import Attributor
from das.cli import build_app
from das.config import BuildConfig, ClipSpec
from das.copies import COPY_BITS, NEAR_BITS, CopyFinder, CopyVerdict, copy_sentence, name_of
from das.index import HASHES_NAME, AttributionIndex
from das.manifest import manifest_bytes
from das.pdq import distances, pdq
from index_build.build import build
from measure.uploads import synthetic
from tests.das.boxes import boxes

WORKS = 12
SIDE = 192


def work(number: int) -> np.ndarray:
    """The works 10 and 11 are the same picture."""
    return boxes(SIDE, SIDE, min(number, 10))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_clip: Path) -> Path:
    """An index of pictures with much structure; the first has a title and a creator, the next a creator."""
    path = tmp_path_factory.mktemp("copies")
    (path / "works").mkdir()
    for number in range(WORKS):
        Image.fromarray(work(number)).save(path / "works" / f"{number:02d}.png")
    rows = "file_name,title,creator\n00.png,Boxes,Ada Lovelace\n01.png,,Anna Atkins\n"
    (path / "works" / "metadata.csv").write_text(rows)
    config = BuildConfig(
        name="copied",
        model=str(tiny_model),
        works=path / "works",
        timesteps=(100, 500),
        dimension=32,
        shard_size=5,
        clip=ClipSpec(directory=tiny_clip),
    )
    build(config, path / "index")
    return path / "index"


@pytest.fixture
def finder(built: Path) -> CopyFinder:
    return CopyFinder(AttributionIndex.open(built))


def jpeg(pixels: np.ndarray) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=60)
    return np.asarray(Image.open(stream).convert("RGB"))


def changed(pixels: np.ndarray, part: float, seed: int = 0) -> np.ndarray:
    """A square of it covered by noise."""
    found = pixels.copy()
    side = round(part * SIDE)
    found[:side, :side] = np.random.default_rng(seed).integers(0, 256, (side, side, 3))
    return found


def test_the_index_keeps_every_work_s_hash_and_quality(built: Path) -> None:
    hashes = AttributionIndex.open(built).hashes
    assert hashes is not None
    assert not hashes.flags.writeable
    for number, row in enumerate(hashes):
        found, quality = pdq(work(number))
        assert row.tolist() == [*found.tolist(), quality]


@pytest.mark.parametrize(
    ("arrives", "mirrored"),
    [
        (lambda pixels: pixels, False),
        (jpeg, False),
        (lambda pixels: np.asarray(Image.fromarray(pixels).resize((150, 140))), False),
        (lambda pixels: np.ascontiguousarray(jpeg(pixels)[:, ::-1]), True),
    ],
    ids=["as it is", "jpeg", "resized", "mirrored"],
)
def test_a_work_is_told_to_be_itself(
    finder: CopyFinder, arrives: Callable[[np.ndarray], np.ndarray], mirrored: bool
) -> None:
    for number in range(10):
        found = finder.find(arrives(work(number)))
        assert found is not None
        assert (found.verdict, found.matches[0].row) == ("copy", number)
        assert found.matches[0].mirrored is mirrored
        assert found.score == found.matches[0].score >= 1 - COPY_BITS / 256


def test_every_verdict_is_that_of_a_loop_over_works(finder: CopyFinder) -> None:
    seen = set()
    for number in range(10):
        for part in (0.1, 0.3, 0.45, 0.6, 0.8):
            asked = changed(work(number), part)
            straight, mirrored = pdq(asked)[0], pdq(np.ascontiguousarray(asked[:, ::-1]))[0]
            apart = []
            for other in range(WORKS):
                theirs = pdq(work(other))[0][None]
                ((_, bits),) = distances(theirs, np.stack([straight, mirrored]))
                apart.append(int(bits.min()))
            found = finder.find(asked)
            assert found is not None
            near = sorted((bits, row) for row, bits in enumerate(apart) if bits <= NEAR_BITS)
            assert [match.row for match in found.matches] == [row for _, row in near]
            assert found.score == round(1 - min(apart) / 256, 4)
            best = min(apart)
            assert found.verdict == ("copy" if best <= COPY_BITS else "near" if best <= NEAR_BITS else "none")
            seen.add(found.verdict)
    assert seen == {"copy", "near", "none"}


def test_works_that_are_one_picture_are_all_named_and_the_first_leads(finder: CopyFinder) -> None:
    found = finder.find(work(10))
    assert found is not None
    assert [match.row for match in found.matches] == [10, 11]


def test_nothing_depends_on_the_pieces_the_works_are_read_in(
    finder: CopyFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [changed(work(number), 0.3) for number in range(6)]
    whole = [finder.find(pixels) for pixels in pictures]
    monkeypatch.setattr(copies, "_CHUNK", 5)
    assert [finder.find(pixels) for pixels in pictures] == whole


@pytest.mark.parametrize("side", [32, 96])
def test_flat_pictures_gradients_and_noise_are_never_copies(finder: CopyFinder, side: int) -> None:
    for uploads in synthetic(side, 3, 20):
        for pixels in uploads.pixels:
            found = finder.find(pixels)
            assert found is not None
            assert found.verdict == ("none" if "noise" in uploads.name else "unclear"), uploads.name
            assert not found.matches
            assert (found.score is None) == (found.verdict == "unclear")


def test_an_answer_says_it_whatever_was_screened_and_names_works_by_id(built: Path) -> None:
    index = AttributionIndex.open(built)
    pictures = [jpeg(work(0)), boxes(SIDE, SIDE, 77)]
    copied, other = Attributor(index).attribute_batch(pictures, candidates=[np.array([4, 5]), None])
    result = copied.as_result()
    assert result["copy"]["verdict"] == "copy"
    assert result["copy"]["matches"][0] == {
        "work_id": index.works.id_of(0),
        "verdict": "copy",
        "score": result["copy"]["score"],
        "method": "pdq",
        "mirrored": False,
    }
    assert {work.row for work in copied.works} == {4, 5}
    assert other.as_result()["copy"]["verdict"] == "none"
    assert "copies" in copied.timings_ms


def test_an_index_that_was_built_before_there_were_hashes_opens_and_tells_nothing(built: Path) -> None:
    index = AttributionIndex.open(built)
    files = {name: record for name, record in index.manifest.files.items() if name != HASHES_NAME}
    older = index.manifest.model_copy(update={"copies": None, "files": files})
    body = json.loads(manifest_bytes(older))
    assert body.pop("copies") is None, "what an earlier version wrote has no such key"
    assert type(index.manifest).model_validate({k: v for k, v in body.items() if k != "digest"}) == older
    without = AttributionIndex(built, older, index.works)
    assert without.hashes is None
    answer = Attributor(without).attribute(work(0))
    assert answer.copy is None
    assert answer.as_result()["copy"] is None


@pytest.mark.parametrize("origin", ["likely", "unsure", "unlikely", None])
def test_the_words_of_a_copy_don_t_say_that_the_model_made_it(origin: str | None) -> None:
    said = copy_sentence("copy", name_of("Boxes", "Ada Lovelace"), mirrored=True, in_model=origin)
    assert said is not None
    assert said.startswith("The picture itself is nearly the same as “Boxes” by Ada Lovelace, mirrored. ")
    assert ("no proof that the model made it" in said) == (origin != "likely")


def test_among_many_works_those_that_are_told_are_the_nearest_in_the_order_of_rows() -> None:
    rng = np.random.default_rng(0)
    asked = rng.integers(0, 256, (2, 32), np.uint8)
    hashes = rng.integers(0, 256, (20_000, 33), np.uint8)
    # Works that differ from the picture, or from it mirrored, in so many bits as many others do.
    for row in rng.permutation(20_000)[:300]:
        bits = np.unpackbits(asked[row % 2])
        bits[rng.permutation(256)[: rng.integers(5, 64)]] ^= 1
        hashes[row, :32] = np.packbits(bits)
    apart = np.stack([np.unpackbits(hashes[:, :32] ^ one, axis=1).sum(1, dtype=int) for one in asked])
    bits = apart.min(0)
    order = np.lexsort((np.arange(20_000), bits))[: copies.MATCHES_KEPT]
    expected = [(int(bits[row]), int(row), bool(apart[1, row] < apart[0, row])) for row in order]
    assert copies._near(hashes, asked) == (expected, bits.min())
    assert copies._near(hashes[:0], asked) == ([], 256)
    none = ~np.tile(asked[:1], (5, 2))[:, :33]
    assert copies._near(none, asked[:1].repeat(2, 0)) == ([], 256)


def test_among_many_embeddings_the_most_alike_are_told() -> None:
    rng = np.random.default_rng(0)
    asked = rng.normal(size=(2, 24)).astype(np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    works = rng.normal(size=(5_000, 24)).astype(np.float32)
    for row in rng.permutation(5_000)[:200]:
        works[row] = asked[row % 2] + 0.15 * rng.normal(size=24)
    works = (works / np.linalg.norm(works, axis=1, keepdims=True)).astype(np.float16)
    cosines = works.astype(np.float64) @ asked.T.astype(np.float64)
    alike, most = copies._alike(works, asked)
    best = cosines.max(1)
    assert most == pytest.approx(best.max(), abs=1e-6)
    assert len(alike) == copies.MATCHES_KEPT
    assert [one[0] for one in alike] == sorted((one[0] for one in alike), reverse=True)
    least = np.sort(best)[-copies.MATCHES_KEPT]
    for cosine, row, flipped in alike:
        assert cosine == pytest.approx(best[row], abs=6e-5)
        assert best[row] >= least - 1e-4
        assert flipped is bool(cosines[row, 1] > cosines[row, 0])


def test_the_other_verdicts_in_words() -> None:
    near = copy_sentence("near", name_of(None, "Anna Atkins"), mirrored=False, in_model=None)
    assert near is not None
    assert near.startswith("The picture itself is close to a work by Anna Atkins without a title: ")
    unclear = copy_sentence("unclear", "", mirrored=False, in_model=None)
    assert unclear is not None
    assert "can't be told" in unclear
    assert copy_sentence("none", "", mirrored=False, in_model=None) is None


def test_a_work_without_title_or_creator_still_makes_a_sentence() -> None:
    assert name_of(None, None) == "a work without a title"


def test_the_command_says_it_in_words_and_as_json(built: Path, tmp_path: Path) -> None:
    picture = tmp_path / "upload.png"
    Image.fromarray(jpeg(work(0))).save(picture)
    command = ["query", str(picture), "--index", str(built)]
    plain = CliRunner().invoke(build_app(), command, catch_exceptions=False)
    words = " ".join(plain.stdout.split())
    assert (
        "The picture itself is nearly the same as “Boxes” by Ada Lovelace. It may be the work itself" in words
    )
    told: dict[str, Any] = json.loads(
        CliRunner().invoke(build_app(), [*command, "--json"], catch_exceptions=False).stdout
    )
    assert told["copy"]["verdict"] == "copy"
    assert told["copy"]["summary"].startswith("The picture itself is nearly the same as “Boxes”")
    assert NOT_IN_MODEL in told["notes"]


def test_a_verdict_is_a_plain_record() -> None:
    verdict = CopyVerdict("none", 0.61, "pdq")
    assert replace(verdict, score=0.6).as_result() == {
        "verdict": "none",
        "score": 0.6,
        "method": "pdq",
        "matches": [],
    }
