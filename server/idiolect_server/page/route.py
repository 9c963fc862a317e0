"""GET /: the page and its parts, as static files that a browser may use in one way only."""

import os
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from idiolect_server.page.paths import PARTS, ROOT

BUILT = Path(__file__).parent / "built"
"""Where `make page` and the build of a wheel put it."""
NOT_BUILT = (
    "Idiolect serves here. Its page is not built: `make page` does that (it needs npm). The API answers without it."
)

# The page's own files, and nothing else: no script in the document, no other host, no frame around it. Text of a model
# or of a user that slips into markup is refused by the browser (Trusted Types; the one policy is Svelte's own).
POLICY = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "connect")),
        *(f"{kind} 'none'" for kind in ("base-uri", "form-action", "frame-ancestors")),
        "require-trusted-types-for 'script'",
        "trusted-types svelte-trusted-html",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
ANEW = {**HEADERS, "Cache-Control": "no-cache"}
"""For what keeps its name when its content changes."""
FOR_EVER = {**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}


class _Parts(StaticFiles):
    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        answer = super().file_response(full_path, stat_result, scope, status_code)
        answer.headers.update(FOR_EVER)
        return answer


def serve_page(app: FastAPI, built: Path = BUILT) -> None:
    """Add the page to the application; a short text in its place where it is not built."""
    index = built / "index.html"

    async def page(http: Request) -> Response:
        if not index.is_file():
            return PlainTextResponse(NOT_BUILT, headers=ANEW)
        return FileResponse(index, headers=ANEW)

    app.add_api_route(ROOT, page, methods=["GET", "HEAD"], include_in_schema=False)
    if index.is_file():
        app.mount(PARTS, GZipMiddleware(_Parts(directory=built / PARTS.strip("/"))))
