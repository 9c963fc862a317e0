"""API keys: 256 random bits, of which the server knows a digest."""

import hashlib
import secrets


def digest(key: str) -> str:
    """What is kept of a key. Keys are 256 random bits, so a plain hash cannot be searched."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> tuple[str, str]:
    """A fresh key and its digest."""
    key = f"idk-{secrets.token_urlsafe(32)}"
    return key, digest(key)
