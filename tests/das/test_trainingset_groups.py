"""Sets of regularisation pictures, and prompts that a whole concept has in common."""

import json
from pathlib import Path

from test_trainingsets import table, write

from das.works import read_works


def test_ai_toolkit_sets_of_regularisation_are_a_group(tmp_path: Path) -> None:
    write(tmp_path, {"in/a.png": 1, "in/a.txt": "mine", "reg/r.png": 2, "reg/r.txt": "a person"})
    sets = "- folder_path: in\n- folder_path: reg\n  is_reg: true\n  num_repeats: 3\n"
    write(tmp_path, {"job.yaml": f"trigger_word: sks\ndatasets:\n{sets}"})
    source = read_works(tmp_path / "job.yaml")
    assert table(source, "prompt", "repeats", "group") == [
        ("in/a.png", "sks mine", 1, None),
        ("reg/r.png", "a person", 3, "regularisation"),  # no trigger word
    ]


def test_onetrainer_concepts_with_one_file_of_prompts_and_subfolders(tmp_path: Path) -> None:
    write(tmp_path, {"one/a.png": 1, "one/sub/b.png": 2, "prior/c.png": 3, "prior/c.txt": "a person"})
    write(tmp_path, {"prompts.txt": "a photo of sks\nsks"})
    concepts = [
        {
            "path": "one",
            "include_subdirectories": True,
            "balancing": 2,
            "text": {"prompt_source": "concept", "prompt_path": "prompts.txt"},
        },
        {"path": "prior", "type": "PRIOR_PREDICTION"},
    ]
    write(tmp_path, {"concepts.json": json.dumps(concepts)})
    source = read_works(tmp_path / "concepts.json")
    assert table(source, "prompt", "repeats", "group") == [
        ("one/a.png", "a photo of sks", 2, None),
        ("one/sub/b.png", "a photo of sks", 2, None),
        ("prior/c.png", "a person", 1, "regularisation"),
    ]
    assert "random-caption" in {remark.code for remark in source.remarks}
