"""Where a page ended, as a text that its caller hands back unread."""

import base64
import binascii
import json
from typing import Any

from idiolect_server.errors import RequestError

MAX_CURSOR_CHARS = 256


def encode(*place: int | str) -> str:
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).decode().rstrip("=")


def decode(cursor: str) -> list[Any]:
    """What `encode` was given; its caller still has to look at it. Raises RequestError for what is no such text."""
    try:
        place = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
    except (ValueError, RecursionError, binascii.Error):
        raise unknown() from None
    if not isinstance(place, list):
        raise unknown()
    return place


def unknown() -> RequestError:
    return RequestError("cursor: not one of ours", hint="start without a cursor", param="cursor")
