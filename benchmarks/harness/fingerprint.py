"""Short hashes for the names of cached files."""

import hashlib
from pathlib import Path


def fingerprint(*parts: object) -> str:
    """A hash of values; a Path stands for the contents of its file."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:12]
