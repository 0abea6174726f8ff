"""`das policy check`: whether a policy can be used, and what it does in words."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from das.errors import DasError


def register(app: typer.Typer) -> None:
    """Add the commands about policies to `das`."""
    policies = typer.Typer(help="Policies that decide about pictures.", no_args_is_help=True)
    policies.callback()(_policies)
    policies.command("check")(check_command)
    app.add_typer(policies, name="policy")


def _policies() -> None:
    """Policies that decide about pictures."""


def check_command(
    file: Annotated[Path, typer.Argument(help="The policy: YAML or JSON.")],
    answer: Annotated[
        Path | None,
        typer.Option(
            help="An answer of the API as JSON (GET /v1/attributions/{id}): decide about it as well."
        ),
    ] = None,
) -> None:
    """Check a policy and say in words what it does; with an answer, also what it decides of that."""
    # What it takes to describe an answer needs half a second to import; `das --help` shall not wait for it.
    from app.moderation import words
    from app.moderation.document import MAX_BYTES, PolicyError
    from app.moderation.logic import decide
    from app.moderation.policy import read_policy
    from app.schemas import Attribution

    try:
        policy = read_policy(_bytes(file, MAX_BYTES + 1))
    except PolicyError as error:
        told = "\n".join(f"  {mistake}" for mistake in error.mistakes)
        raise DasError(f"{file} can't be used as a policy:\n{told}") from error
    typer.echo(f"{policy.policy}: {policy.title}" if policy.title else policy.policy)
    for rule in policy.rules:
        typer.echo(f"- {words.rule_in_words(rule)}")
    for said in (words.default_in_words(policy.default), *words.ALWAYS, *words.remarks(policy)):
        typer.echo(said)
    if answer is None:
        return
    try:
        asked = Attribution.model_validate_json(_bytes(answer, 32 << 20))
    except ValidationError as error:
        raise DasError(
            f"{answer} isn't an answer of /v1/attributions: {error.error_count()} of its fields don't fit."
        ) from error
    verdict = decide(policy, asked)
    typer.echo(f"\n{asked.id}: {verdict.summary}")
    for reason in verdict.reasons:
        typer.echo(f"- {reason.code} ({reason.outcome}): {reason.text}")
    for note in verdict.notes:
        typer.echo(note)


def _bytes(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(most)
    except OSError as error:
        raise DasError(f"{path} can't be read: {error.strerror}.") from error
