"""The document of all routes: FastAPI's, made true."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from idiolect_server.door.access import is_open
from idiolect_server.errors import RequestError
from idiolect_server.openapi import answers, refusals, requests

DESCRIPTION = "Replies in the way that each user prefers. Requests are strict: what is not described is refused."
KEY = "key"
BODIES = {
    "/v1/chat/completions": requests.REQUEST,
    "/v1/completions": "CompletionRequest",
    "/v1/responses": "ResponseRequest",
    "/v1/messages": "MessageRequest",
    "/v1/messages/count_tokens": "CountRequest",
}
"""Routes that read their body themselves."""
TAGS = {
    "replies": "What the model writes.",
    "votes": "Which of two replies a user prefers.",
    "users": "What is known of a user, and how it is taken back.",
    "OpenAI": "The OpenAI API.",
    "Anthropic": "The Anthropic API.",
    "server": "What is served, and how it goes.",
}


def document(app: FastAPI, with_keys: bool) -> dict[str, Any]:
    """OpenAPI 3.1. `with_keys` says whether callers need one."""
    tags = [{"name": name, "description": description} for name, description in TAGS.items()]
    whole = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes, tags=tags)
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods:
                operation = whole["paths"][route.path_format][method.lower()]
                _describe(operation, route, with_keys)
    schemas = whole["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= refusals.SCHEMAS | requests.schemas() | answers.SCHEMAS
    whole["components"]["securitySchemes"] = {KEY: {"type": "http", "scheme": "bearer"}}
    _drop_titles(whole["paths"])
    _drop_titles(schemas)
    return whole


def _drop_titles(part: Any) -> None:
    """Pydantic's say a name again. Generators would take them for names of types, of which two are the same."""
    if isinstance(part, dict):
        if isinstance(part.get("title"), str):
            del part["title"]
        for below in part.values():
            _drop_titles(below)
    elif isinstance(part, list):
        for below in part:
            _drop_titles(below)


def _describe(operation: dict[str, Any], route: APIRoute, with_keys: bool) -> None:
    """The route's errors, in place of what FastAPI says of them, and whether it wants a key."""
    path, answers = route.path_format, operation["responses"]
    errors = [*refusals.before(path, with_keys), *vars(route.endpoint).get("raises", ())]
    if answers.pop("422", None) is not None:  # there are fields that may be wrong
        errors.append(RequestError)
    answers |= refusals.responses(errors, path)
    if path in BODIES:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": requests.ref(BODIES[path])}},
        }
    operation["security"] = [{KEY: []}] if with_keys and not is_open(path) else []
