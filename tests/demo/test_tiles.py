"""The words on the samples are what the truth and CLIP say, and the first rows show the breadth of the works."""

import json
from collections import Counter
from pathlib import Path

import pytest

from app.samples import SHOWN_FIRST, Samples
from das.errors import DasError
from demo.effects import read_effects
from demo.home import SAMPLES
from demo.samples import TITLES, Sample, read_samples
from demo.tiles import COPIED, ELSEWHERE, NOTE, ONE, UNCLEAR, Tile, in_order, look_alikes, tile, tiles_of


@pytest.fixture(scope="module")
def looks() -> dict[str, str]:
    return look_alikes(SAMPLES, read_samples(SAMPLES))


@pytest.fixture(scope="module")
def tiles(looks: dict[str, str]) -> list[Tile]:
    return tiles_of(read_samples(SAMPLES), read_effects(), looks)


def test_samples_json_says_what_the_truth_and_clip_say(tiles: list[Tile]) -> None:
    kept = json.loads((SAMPLES / TITLES).read_text())
    assert kept == {"note": NOTE, "samples": [one.entry() for one in tiles]}
    assert [(one.name, one.shows, one.about) for one in Samples(SAMPLES)] == [
        (one.sample.file, one.word, one.sentence) for one in tiles
    ]


def test_a_word_is_as_its_sample_is(tiles: list[Tile], looks: dict[str, str]) -> None:
    effects = read_effects()
    for one in tiles:
        file = one.sample.file
        assert (one.word == COPIED) == one.sample.reproduction
        if one.word in (ONE, ELSEWHERE):
            assert effects.is_significant(file)
            assert (looks[file] == effects.first(file)) == (one.word == ONE)
        if one.word == UNCLEAR:
            assert not effects.is_significant(file)


def test_the_first_rows_show_every_photograph_and_few_copies(tiles: list[Tile]) -> None:
    assert sorted(one.sample.file for one in tiles) == sorted(read_effects().samples)
    first = tiles[:SHOWN_FIRST]
    assert {one.photograph for one in first} == {one.photograph for one in tiles}
    words = Counter(one.word for one in first)
    assert set(words) == {one.word for one in tiles}
    assert words[COPIED] * 4 < SHOWN_FIRST
    copied = {one.sample.nearest_planted for one in first if one.word == COPIED}
    assert copied == {one.sample.nearest_planted for one in tiles if one.word == COPIED}


def sample(seed: int, *, reproduction: bool = False) -> Sample:
    return Sample(f"generation-{seed:04d}.png", "", seed, 50, "x", 1.0, "x", 1.0, reproduction)


def test_words_take_turns_and_no_picture_is_lost() -> None:
    copies = [Tile(sample(seed), "ab"[seed % 2], COPIED, "") for seed in (4, 6, 8, 9)]
    ones = [Tile(sample(seed), "a", ONE, "") for seed in (1, 3)]
    ordered = in_order([*copies, *ones])
    assert [one.sample.seed for one in ordered] == [1, 9, 3, 4, 6, 8]


def test_what_isnt_certain_is_not_said(tiles: list[Tile]) -> None:
    effects = read_effects()
    sentences = {one.sample.file: one for one in tiles}
    unclear = next(one for one in tiles if one.word == UNCLEAR)
    assert "owes" not in unclear.sentence
    elsewhere = next(one for one in tiles if one.word == ELSEWHERE)
    same = tile(elsewhere.sample, effects, effects.first(elsewhere.sample.file))
    assert same.word == ONE
    assert sentences[elsewhere.sample.file].sentence != same.sentence


def test_samples_without_effects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DasError, match=r"1 samples such as generation-0001\.png.*das demo truth"):
        tiles_of([sample(1)], read_effects(), {})
