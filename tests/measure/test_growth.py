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
    assert all(set(one.core_s) == {"default", "economical"} for one in (pixels, latent))
    # 18.17 s a work of three timesteps on two threads.
    assert latent.core_s["default"] == pytest.approx(18.17 / 3 * 2)


def test_what_was_measured_is_told_from_what_was_reckoned() -> None:
    text = growth(DOCS / "results")
    pixels, latent = (line for line in text.splitlines() if line.startswith("- ") and "reckoned." in line)
    assert (
        "default 0.6 s measured, economical 0.14 s reckoned. The run was ended after its first round"
        in pixels
    )
    assert "[decision 41](decisions/" in pixels
    assert latent.endswith(" 2.9 s reckoned. Measured was wall time, counted for each of its 2 threads.")


def test_a_dearer_core_makes_only_money_grow() -> None:
    cheap, dear = (growth(DOCS / "results", Assumed(core_hour=price)) for price in (0.04, 4.0))
    assert cheap != dear
    assert [line.split("|")[1:3] for line in cheap.splitlines()] == [
        line.split("|")[1:3] for line in dear.splitlines()
    ]
    # 2 bytes for each of 1,024 numbers of two sets, for a million works.
    assert "| 1,000,000 | default | 1,024 | 4.1 GB |" in cheap
    assert all(f"- {works:,}: " in cheap for works in WORKS)
