"""Liveness (restart me when this fails) and readiness (send me requests when this is 200)."""

from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from idiolect_server.errors import NotReady, StoreError
from idiolect_server.serving import serving


class Health(BaseModel):
    """GET /health/live, and GET /health/ready when it is not."""

    status: Literal["ok", "starting", "stalled", "stopping"]


class Ready(BaseModel):
    status: Literal["ready"]
    store: Literal["ok", "down"]
    bundle: str


router = APIRouter(prefix="/health", tags=["server"])


@router.get("/live")
async def live() -> Health:
    """The process answers. A dead engine ends the process, so there is nothing more to ask."""
    return Health(status="ok")


@router.get("", name="health", response_model=Ready, responses={503: {"model": Health, "description": "not ready"}})
@router.get("/ready", response_model=Ready, responses={503: {"model": Health, "description": "not ready"}})
async def ready(http: Request) -> JSONResponse:
    """200 when the engine is up and goes on. Without the store replies are degraded, not refused, so that is reported
    only.
    """
    if http.app.state.closing.reason is not None:
        return JSONResponse({"status": "stopping"}, status_code=503)
    try:
        now = serving(http.app)
    except NotReady:
        return JSONResponse({"status": "starting"}, status_code=503)
    if not now.heart.beats:
        return JSONResponse({"status": "stalled"}, status_code=503)
    try:
        await now.store.ping()
        store = "ok"
    except StoreError:
        store = "down"
    return JSONResponse({"status": "ready", "store": store, "bundle": now.releases.active.bundle_id})
