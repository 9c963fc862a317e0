"""GET /status: what is served, and whether votes count; if not, why."""

from fastapi import APIRouter, Request

from idiolect_server.errors import StoreError
from idiolect_server.serving import leased, serving
from idiolect_server.wire.native import StatusResponse

router = APIRouter(tags=["server"])


@router.get("/status")
async def status(http: Request) -> StatusResponse:
    """The bundle, its user model and its question bank. Nothing of a user."""
    release = leased(http)
    manifest = release.bundle.manifest
    try:
        await serving(http.app).store.ping()
        answers = True
    except StoreError:
        answers = False
    return StatusResponse(
        bundle=manifest.bundle_id,
        base_model=manifest.base_model.name,
        user_model=manifest.user_model.kind,
        trained_users=manifest.user_model.n_users,
        cluster_names=None if manifest.cluster_names is None else list(manifest.cluster_names),
        questions=0 if manifest.bank is None else manifest.bank.n_questions,
        votes_count=release.learner.infers,
        why_not=release.learner.why_not,
        store="ok" if answers else "down",
    )
