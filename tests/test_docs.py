"""Documentation that falls behind fails here: settings, commands, endpoints, results."""

import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
import typer.main

from das.cli import build_app
from jobs.settings import Settings
from measure.results.pages import out_of_step

ROOT = Path(__file__).parent.parent
DOCS = {path.name: path.read_text() for path in (ROOT / "docs").glob("*.md")}
README = (ROOT / "README.md").read_text()


def commands(command, path=()):
    """Every command of the command line as words, with its options."""
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from commands(child, (*path, name))
        if path and getattr(command, "invoke_without_command", False):
            yield path, command
    elif not command.hidden:
        yield path, command


COMMANDS = dict(commands(typer.main.get_command(build_app())))


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_every_setting_is_documented(field):
    assert f"`DAS_{field.upper()}`" in DOCS["operations.md"]
    assert Settings.model_fields[field].description


@pytest.mark.parametrize("words", sorted(COMMANDS), ids=" ".join)
def test_every_command_and_option_is_documented(words):
    text = README + DOCS["operations.md"]
    assert f"das {' '.join(words)}" in text
    assert COMMANDS[words].help
    for option in COMMANDS[words].params:
        if option.param_type_name == "option" and not option.hidden and option.name != "help":
            assert getattr(option, "help", None), f"das {' '.join(words)} {option.name}"


def test_every_endpoint_is_documented():
    described = json.loads((ROOT / "docs" / "openapi.json").read_text())
    for path, methods in described["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in DOCS["api.md"], f"{method.upper()} {path}"


@pytest.mark.parametrize("page", ["architecture.md", "method.md", "api.md", "operations.md", "deployment.md"])
def test_links_inside_the_documentation_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", DOCS[page]):
        if "://" not in target:
            assert (ROOT / "docs" / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_the_pages_at_the_top_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert "://" in target or (ROOT / target).exists(), f"{page}: {target}"


def test_the_readme_leads_to_every_page():
    for page in ["CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{name}" for name in DOCS)]:
        assert f"]({page})" in README, page


def test_every_decision_has_a_number_of_its_own():
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [record.name[:4] for record in records]
    assert [n for n in set(numbers) if numbers.count(n) > 1] == [], "give the later one the next free number"
    for record in records:
        assert record.read_text().startswith(f"# {int(record.name[:4])}. "), record.name


def test_the_changelog_knows_this_version():
    assert f"## {version('das-attribution')} (" in (ROOT / "CHANGELOG.md").read_text()


def test_nothing_names_the_machine_it_was_written_on():
    written = [*ROOT.glob("*.md"), ROOT / "Makefile", ROOT / ".ci" / "run", *(ROOT / "docs").rglob("*.md")]
    for path in written:
        assert not re.search(r"/(?:home|root|tmp|opt)/|--(?:extra-)?index-url", path.read_text()), path


def test_the_results_page_is_made_from_its_figures():
    assert out_of_step(ROOT / "docs" / "results") == []
