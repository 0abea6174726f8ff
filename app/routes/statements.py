"""Statements for payers."""

from collections.abc import Iterator
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.callers import Reading
from app.problems import Problem, documented
from app.service import service_of
from app.statement_schemas import Statement
from app.statements import Amount, Period, StatementRefused, as_csv, statement
from jobs.answered import Answered, answered
from jobs.credentials import Scope

router = APIRouter(prefix="/v1", tags=["evidence"])


MOST_ANSWERS = 20_000
"""Answers that one request looks at: some seconds."""


def _bounded(found: Iterator[Answered]) -> Iterator[Answered]:
    for number, one in enumerate(found):
        if number == MOST_ANSWERS:
            raise Problem(
                "invalid-request",
                f"The period has more than {MOST_ANSWERS:,} answers: ask for a shorter one, or have the operator"
                " run das statement.",
            )
        yield one


@router.get(
    "/statements",
    operation_id="getStatement",
    response_model=Statement,
    responses={
        200: {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "The statement."},
        **documented("invalid-request", "not-ready", "busy", "storage-unavailable"),
    },
)
async def get_statement(
    request: Request,
    caller: Reading,
    since: Annotated[str, Query(alias="from", max_length=40, description="A day or moment (UTC).")],
    until: Annotated[str, Query(alias="to", max_length=40, description="The first that isn't part of it.")],
    index: Annotated[
        str | None,
        Query(
            max_length=200,
            description="A name, for the answers of all of its versions, or the id of the version that is served, for"
            " its own; default: the only name.",
        ),
    ] = None,
    amount: Annotated[str | None, Query(max_length=30, description="A sum to divide, such as 1000.")] = None,
    currency: Annotated[str | None, Query(max_length=3, description="Its currency, such as EUR.")] = None,
    format: Annotated[Literal["json", "csv"], Query(description="JSON, or a table.")] = "json",
) -> Response:
    """Shares by rights holder over the answers of a period: of yours, with the scope `admin` of everybody's."""
    service = service_of(request)
    served = service.catalogue.within(caller.indexes).choose(index)
    about = served.id if index == served.id else served.name
    owner = None if Scope.ADMIN in caller.scopes else caller.owner
    try:
        period, whole = Period.read(since, until), Amount.read(amount, currency)
    except StatementRefused as error:
        raise Problem("invalid-request", f"{error}.") from error

    def make() -> Statement:
        found = answered(service.store.database, about, period.since, period.until, owner)
        # Whoever reads of everybody's pays by it, and has the index.
        rounding = None if owner is None else service.visibility.to(caller).rounding
        made = statement(served.index, period, _bounded(found), whole, rounding)
        service.store.audit.write(
            caller.actor,
            "statement.made",
            served.id,
            since=period.since.isoformat(),
            until=period.until.isoformat(),
            everybody=owner is None,
        )
        return made

    async with service.drawing.turn(caller.address):
        made = await run_in_threadpool(make)
    headers = {"Cache-Control": "no-store"}
    if format == "json":
        return Response(made.model_dump_json(), media_type="application/json", headers=headers)
    name = f"statement-{period.since:%Y-%m-%d}-{period.until:%Y-%m-%d}.csv"
    headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return Response(as_csv(made), media_type="text/csv; charset=utf-8", headers=headers)
