"""python -m idiolect_server.keys: print a fresh API key and the digest to put into IDIOLECT_API_KEYS."""

import hashlib
import secrets
import sys


def digest(key: str) -> str:
    """What is kept of a key. Keys are 256 random bits, so a plain hash cannot be searched."""
    return hashlib.sha256(key.encode()).hexdigest()


if __name__ == "__main__":
    key = f"idk-{secrets.token_urlsafe(32)}"
    sys.stdout.write(f"key     {key}\ndigest  {digest(key)}\n")
