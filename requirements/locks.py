"""The lock files of the images' Python packages."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Of each image.
LOCKS = {name: ROOT / "docker" / f"requirements-{name}.lock" for name in ("cpu", "cuda", "web")}

# As uv writes it: the version, an environment marker perhaps, and the hashes on lines of their own.
_PACKAGE = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[^\s;\\]+)(?P<rest>(?:[^\n]*\\\n)*[^\n]*)$", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:(\w+)")


@dataclass(frozen=True)
class LockedPackage:
    """A package of a lock file.

    Attributes:
        name: normalized, as package indexes compare names.
        version: may have a local part, such as `+cpu`.
        hashes: SHA-256 of each file of this version that may be installed, in hexadecimal.
    """

    name: str
    version: str
    hashes: frozenset[str]

    @property
    def public_version(self) -> str:
        """The version without its local part, which no advisory mentions."""
        return self.version.partition("+")[0]


def read_lock(text: str) -> list[LockedPackage]:
    """The packages of a lock file, in its order."""
    return [
        LockedPackage(normalized(found["name"]), found["version"], frozenset(_HASH.findall(found["rest"])))
        for found in _PACKAGE.finditer(text)
    ]


def normalized(name: str) -> str:
    """A package's name as indexes compare it: `Foo.Bar_baz` is `foo-bar-baz`."""
    return re.sub(r"[-_.]+", "-", name).lower()
