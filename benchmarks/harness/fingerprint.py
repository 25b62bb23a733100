"""What a cached file was made from, as a short hash in its name."""

import hashlib
from pathlib import Path


def fingerprint(*parts: object) -> str:
    """A hash of values, and of the contents of files where a part is a Path."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:12]
