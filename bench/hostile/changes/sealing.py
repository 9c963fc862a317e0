"""A changed bundle with digests that fit again, as somebody would make it who wants it to be served."""

import json
from pathlib import Path
from typing import Any

from idiolect.files.folder import MANIFEST, digest
from idiolect.manifest import Manifest


def reseal(bundle: Path) -> None:
    """Digests and sizes of the files that lie there now, no others; links are followed."""
    values = _values(bundle)
    if values is not None:
        files = sorted(path for path in bundle.rglob("*") if path.is_file() and path.name != MANIFEST)
        values["files"] = {path.relative_to(bundle).as_posix(): digest(path).model_dump() for path in files}
        write_manifest(bundle, values)


def reseal_manifest(bundle: Path) -> None:
    """The manifest's own digests, whatever it says of the files."""
    values = _values(bundle)
    if values is not None:
        write_manifest(bundle, values)


def write_manifest(bundle: Path, values: dict[str, Any]) -> None:
    """These values, with the digests that a reader computes if it takes them."""
    values = {name: value for name, value in values.items() if name not in ("digest", "bundle_id")}
    try:
        manifest = Manifest.model_validate_json(json.dumps(values))
        values |= {"digest": manifest.digest, "bundle_id": manifest.bundle_id}
    except ValueError:
        values |= {"digest": "0" * 64, "bundle_id": "0" * 16}
    (bundle / MANIFEST).write_bytes(json.dumps(values).encode("utf-8", "surrogatepass"))


def _values(bundle: Path) -> dict[str, Any] | None:
    """Of the manifest; None when no reader could read it."""
    file = bundle / MANIFEST
    if not file.is_file():
        return None  # such as a link to a device without end
    try:
        values = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None
