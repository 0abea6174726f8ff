"""open_clip without what it brings along and this process never uses: 190 MB of memory and seconds of start.

open_clip imports timm and transformers for towers that most CLIP models don't have, and torchvision asks torch's
compiler at import whether it could compile one of its operators, which imports all of the compiler. Here those
imports are answered with "not there" for as long as open_clip is being imported, and only where no model that is
to be loaded needs them.
"""

import contextlib
import importlib
import importlib.util
import json
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from das.config import ClipSpec

logger = logging.getLogger(__name__)

COMPILER = ("torch._dynamo", "torch._dynamo.utils")
OPTIONAL = ("timm", "transformers")
# Keys of a model's configuration that name a tower of timm or of transformers.
FOREIGN_TOWERS = ("timm_model_name", "hf_model_name")


def import_open_clip(specs: "Iterable[ClipSpec]") -> None:
    """Import open_clip for these models, leanly where they allow it. Afterwards any module can be imported again."""
    if "open_clip" in sys.modules:
        return
    if not all(_has_own_towers(spec) for spec in specs):
        importlib.import_module("open_clip")
        return
    try:
        with _answered(_compiler_that_cannot()):
            importlib.import_module("torchvision")
        with _answered(dict.fromkeys(OPTIONAL)):
            importlib.import_module("open_clip")
    except Exception:
        # Another version may need what was withheld; it then gets all of it.
        logger.warning("open_clip can't be imported without its optional parts", exc_info=True)
        for name in [name for name in sys.modules if name.split(".")[0] in ("torchvision", "open_clip")]:
            del sys.modules[name]
        importlib.import_module("open_clip")


def _has_own_towers(spec: "ClipSpec") -> bool:
    """Whether a model is made of open_clip's own towers, by its configuration; False where that isn't found."""
    if spec.directory is not None:
        path = spec.directory / "open_clip_config.json"
    else:
        package = importlib.util.find_spec("open_clip")
        if package is None or package.origin is None:
            return False
        path = Path(package.origin).parent / "model_configs" / f"{spec.model}.json"
    try:
        text = json.dumps(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False
    return not any(f'"{key}"' in text for key in FOREIGN_TOWERS)


def _compiler_that_cannot() -> dict[str, ModuleType | None]:
    compiler, questions = (ModuleType(name) for name in COMPILER)
    questions.is_compile_supported = lambda _device: False  # type: ignore[attr-defined]
    compiler.utils = questions  # type: ignore[attr-defined]
    return {COMPILER[0]: compiler, COMPILER[1]: questions}


@contextlib.contextmanager
def _answered(answers: dict[str, ModuleType | None]) -> Iterator[None]:
    """Answer imports of these names with the given module, None for "not there", unless they are loaded already."""
    given = {name: module for name, module in answers.items() if name not in sys.modules}
    # `sys.modules` may hold None, which makes an import fail at once; its type doesn't say so.
    sys.modules.update(given)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name, module in given.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
