"""`/v1/attributions/{id}/events`: what happens to a question, told as it happens."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Request
from starlette.responses import Response

from app.callers import Reading
from app.events import LONGEST_NUMBER, MEDIA_TYPE, last_event, stream
from app.examples import ATTRIBUTION, EVENTS
from app.problems import documented
from app.service import service_of

router = APIRouter(prefix="/v1/attributions", tags=["attributions"])


@router.get(
    "/{attribution_id}/events",
    operation_id="streamAttributionEvents",
    response_class=Response,
    responses={
        200: {
            "content": {MEDIA_TYPE: {"example": EVENTS}},
            "description": "Server-sent events until the question is finished. Each `data` is an AttributionEvent,"
            " or a ProgressEvent under the name `progress`.",
        },
        204: {"description": "The question is finished, and all of its events have been told."},
        **documented(
            "not-found", "erased", "invalid-request", "too-many-streams", "busy", "storage-unavailable"
        ),
    },
)
async def stream_attribution_events(
    request: Request,
    caller: Reading,
    attribution_id: Annotated[
        str, Path(description="The id that POST answered with.", examples=[ATTRIBUTION["id"]], max_length=64)
    ],
    last_event_id: Annotated[
        str | None,
        Header(
            description="The id of the last event that came: those after it are told. Default: all of them.",
            json_schema_extra={"pattern": f"^[0-9]{{0,{LONGEST_NUMBER}}}$"},
        ),
    ] = None,
) -> Response:
    """What happens to a question, as it happens: its events so far first, then each new one, and its progress."""
    events = await stream(service_of(request), caller, attribution_id, last_event(last_event_id))
    return Response(status_code=204) if events is None else events
