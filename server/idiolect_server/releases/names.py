"""The names by which one release answers: itself, itself without personalizing, and the base model under it."""

from collections.abc import Mapping
from dataclasses import dataclass

from idiolect.bundle import Bundle
from idiolect_server.engine.base import Adapter, ChatApi, Engine

GENERIC, BASE = ":generic", ":base"
"""What the names of the two others end in."""


@dataclass(frozen=True)
class Named:
    """What a name stands for."""

    chat: ChatApi
    is_personal: bool = True
    """Whether it heeds who the user is. Otherwise everybody is served as an unknown user."""
    has_tokens: bool = True
    """Whether there are user tokens in the prompt at all."""


def names(engine: Engine, bundle: Bundle, adapter: Adapter | None) -> Mapping[str, Named]:
    """Those of a bundle. The base model is there only where the adapter is not in its weights."""
    name, layout = bundle.manifest.base_model.name, bundle.manifest.layout
    served = {
        name: Named(engine.chat_api(layout, name, adapter)),
        name + GENERIC: Named(engine.chat_api(layout, name + GENERIC, adapter), is_personal=False),
    }
    if adapter is not None:
        bare = engine.chat_api(layout, name + BASE, None)
        served[name + BASE] = Named(bare, is_personal=False, has_tokens=False)
    return served
