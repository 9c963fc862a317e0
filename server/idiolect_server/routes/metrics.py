"""GET /metrics: counters and gauges for Prometheus, behind the API key like everything but health."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

router = APIRouter(tags=["server"])


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics() -> Response:
    """This process's numbers, vLLM's own included."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
