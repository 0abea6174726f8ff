"""`das bench growth`: straight lines from measured costs, and the page that shows them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from das.cli import build_app
from measure.growth import WORKS, Assumed, UnitCosts, growth

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_shows_what_the_command_prints() -> None:
    done = CliRunner().invoke(build_app(), ["bench", "growth", "--results", str(DOCS / "results")])
    assert done.exit_code == 0, done.output
    page = (DOCS / "operations.md").read_text()
    section = page.partition("## How it grows\n\n")[2].partition("\n## ")[0]
    assert section.endswith(done.stdout), "run `das bench growth` and put its tables into docs/operations.md"


def test_costs_are_those_that_were_measured() -> None:
    pixels, latent = UnitCosts.of(DOCS / "results")
    assert pixels.core_s["default"] > pixels.core_s["economical"] > 0
    # 18.17 s a work of three timesteps on two threads.
    assert latent.core_s["default"] == pytest.approx(18.17 / 3 * 2)


def test_a_dearer_core_makes_only_money_grow() -> None:
    cheap, dear = (growth(DOCS / "results", Assumed(core_hour=price)) for price in (0.04, 4.0))
    assert cheap != dear
    assert [line.split("|")[1:3] for line in cheap.splitlines()] == [
        line.split("|")[1:3] for line in dear.splitlines()
    ]
    # 2 bytes for each of 1,024 numbers of two sets, for a million works.
    assert "| 1,000,000 | default | 1,024 | 4.1 GB |" in cheap
    assert all(f"- {works:,}: " in cheap for works in WORKS)
