"""From settings to what an engine can be started on: a checked bundle, its base model, its weights merged or not."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from idiolect.base_model import DEMO, check_base_model, is_quantized, locate
from idiolect.bundle import Bundle
from idiolect.files.folder import Folder
from idiolect.fingerprint import fingerprint
from idiolect.merge import check_fits, merge_bundle, read_merged
from idiolect_server.engine.base import Adapter
from idiolect_server.errors import SettingsError
from idiolect_server.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A checked bundle, the folder of the model to load, and the adapter to serve beside it if it is not merged."""

    bundle: Bundle
    model: str
    adapter: Adapter | None
    loaded: Folder
    """The checked files that the engine opens again: the bundle's, or those of its merged copy."""


def prepare(settings: Settings, merges: Callable[[], bool]) -> Prepared:
    """What the settings ask for. `merges` says whether adapters are merged here unless the settings say otherwise.

    Raises BundleError and SettingsError.
    """
    bundle = Bundle.read(settings.bundle)
    if bundle.model_path is not None:
        return Prepared(bundle, str(bundle.model_path), None, bundle.files)
    base = _base_model(settings)
    check_base_model(bundle.manifest, base, settings.cache_dir)
    if not _is_merged(settings, base, merges):
        assert bundle.adapter_path is not None
        check_fits(bundle, base)
        return Prepared(bundle, str(base), Adapter(bundle.bundle_id, bundle.adapter_path), bundle.files)
    # By all that is in the base model: another chat template, or a copy, is merged into anew.
    identity = fingerprint(base, settings.cache_dir)
    folder = settings.cache_dir / "merged" / f"{bundle.bundle_id}-{identity[:16]}"
    merged = read_merged(folder, bundle, base)
    if merged is None:
        log.info("merging the adapter of bundle %s into %s", bundle.bundle_id, base)
        merged = merge_bundle(bundle, base, folder)
    return Prepared(bundle, str(merged.model_path), None, merged.files)


def _is_merged(settings: Settings, base: Path, merges: Callable[[], bool]) -> bool:
    """Raises SettingsError when quantized weights are asked to take up an adapter."""
    if is_quantized(base):
        if settings.adapter == "merged":
            raise SettingsError(f"{base}: quantized, no adapter can be merged", hint="set IDIOLECT_ADAPTER=live")
        return False
    return settings.adapter == "merged" or (settings.adapter == "auto" and merges())


def _base_model(settings: Settings) -> Path:
    """The base model's folder. Raises SettingsError when the demo model was not made, ModelMissing."""
    path = locate(settings.model, settings.cache_dir)
    if settings.model == DEMO and not path.is_dir():
        raise SettingsError(f"the demo model is not in {path}", hint="run `idiolect model`")
    return path
