"""Everything that belongs to one bundle being served. Built once, never changed, given up as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass

from idiolect.bundle import Bundle
from idiolect.prompt.layout import Layout
from idiolect_server.engine.base import Adapter
from idiolect_server.errors import UnknownModel
from idiolect_server.releases.names import Named
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
    names: Mapping[str, Named]
    """What it answers by, its own name first."""

    def named(self, model: object) -> Named:
        """What `model` asks for; without one the release itself. Raises UnknownModel."""
        if model is None or model == "":
            return next(iter(self.names.values()))
        found = self.names.get(model) if isinstance(model, str) else None
        if found is None:
            known = ", ".join(self.names)
            raise UnknownModel(
                f"the model {str(model)[:256]!r} is not served", hint=f"these are: {known}", param="model"
            )
        return found

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
