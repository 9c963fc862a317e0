"""Everything that belongs to one bundle being served. Built once, never changed, given up as a whole."""

from dataclasses import dataclass

from idiolect.bundle import Bundle
from idiolect.prompt.layout import Layout
from idiolect_server.engine.base import Adapter, ChatApi
from idiolect_server.users.learner import Learner
from idiolect_server.users.personalizer import Personalizer


@dataclass(frozen=True)
class Release:
    """Who the bundle's users are, which weights they are served with, and where their tokens go."""

    bundle: Bundle
    adapter: Adapter | None
    """None when the engine's own weights are the bundle's."""
    personalizer: Personalizer
    learner: Learner
    chat: ChatApi

    @property
    def bundle_id(self) -> str:
        return self.bundle.bundle_id

    @property
    def frequency_penalty(self) -> float:
        """That of the bundle, for requests that bring none."""
        decoding = self.bundle.manifest.decoding
        return 0.0 if decoding is None else decoding.frequency_penalty

    @property
    def layout(self) -> Layout:
        return self.bundle.manifest.layout
