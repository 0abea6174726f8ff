"""The lean import of open_clip: smaller, and the same numbers."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
import numpy as np
from das.config import ClipSpec
spec = ClipSpec(directory=sys.argv[1])
if sys.argv[2] == "lean":
    from app.lean_import import import_open_clip
    import_open_clip([spec])
from das.screening import Embedder
pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
vector = Embedder.load(spec).embed([pixels])[0]
heavy = [name for name in ("torch._dynamo", "timm", "transformers") if name in sys.modules]
import torch._dynamo.utils, timm
print(json.dumps({"vector": vector.tolist(), "heavy": heavy}))
"""


def embedded(clip, how):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, clip, how], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_it_leaves_out_what_isnt_used_and_changes_no_number(tiny_clip):
    lean, whole = embedded(str(tiny_clip), "lean"), embedded(str(tiny_clip), "whole")
    assert lean["vector"] == whole["vector"]
    assert lean["heavy"] == []


@pytest.mark.parametrize("tower", ["timm_model_name", "hf_model_name"])
def test_models_with_foreign_towers_get_everything(tower, tmp_path):
    from app.lean_import import _has_own_towers
    from das.config import ClipSpec

    config = {"model_cfg": {"vision_cfg": {tower: "x"}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    assert not _has_own_towers(ClipSpec(directory=tmp_path))
    assert _has_own_towers(ClipSpec(model="ViT-B-32", pretrained="laion2b_s34b_b79k"))
    assert not _has_own_towers(ClipSpec(model="no-such-model", pretrained="x"))
