"""`/metrics`: what Prometheus is told."""

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.callers import Administering
from app.metrics.exposition import written
from app.problems import documented
from app.service import service_of

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    operation_id="getMetrics",
    response_class=Response,
    responses={
        200: {
            "content": {"text/plain": {"schema": {"type": "string"}}},
            "description": "Every metric, in Prometheus's text form or in OpenMetrics'.",
        },
        **documented("storage-unavailable"),
    },
)
async def get_metrics(request: Request, caller: Administering) -> Response:
    """Measurements for Prometheus, of this process and of the whole service."""
    meters = service_of(request).meters
    text, media_type = await run_in_threadpool(written, meters.registry, request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": media_type, "Cache-Control": "no-store"})
