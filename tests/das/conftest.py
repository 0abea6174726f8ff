"""Pipelines that several files of tests put LoRAs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lora_files import Bases


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    """A pipeline of each family, made when it is first asked for. Don't change them."""
    from lora_files import Bases  # only here: most tests of this folder need no model

    return Bases(tmp_path_factory.mktemp("bases"))
