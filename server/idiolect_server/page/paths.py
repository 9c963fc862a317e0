"""Which paths are the page's own: they need no key, as they hold nothing of anybody."""

ROOT = "/"
PARTS = "/page"
"""Scripts, styles and icon, below it. Their names hold a digest of their content."""


def is_page(path: str) -> bool:
    return path == ROOT or path.startswith(f"{PARTS}/")
