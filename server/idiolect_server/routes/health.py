"""Liveness (restart me when this fails) and readiness (send me requests when this is 200)."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from idiolect_server.errors import NotReady, StoreError
from idiolect_server.serving import serving

router = APIRouter(prefix="/health")


@router.get("/live")
async def live() -> dict[str, str]:
    """The process answers. A dead engine ends the process, so there is nothing more to ask."""
    return {"status": "ok"}


@router.get("")
@router.get("/ready")
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
