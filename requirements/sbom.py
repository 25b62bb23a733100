"""Write a software bill of materials (SBOM, CycloneDX) of the Python packages of each image.

Versions, package URLs and hashes come from the lock files, which are all that pip installs into the images. Licenses
come from the metadata of an environment, for those packages that it has in the same version: lock files name none. The
packages of the images' operating systems, and what NVIDIA's image contains, are not part of it.

Usage: python -m requirements.sbom FOLDER --environment PYTHON, with the Python of an environment that has
requirements/audit.txt. PYTHON is the interpreter of the environment that the licenses are read from.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from requirements.install import CPU_INDEX
from requirements.locks import LOCKS, ROOT, normalized

_CYCLONEDX = Path(sys.executable).with_name("cyclonedx-py")
# Of each package in an environment, whose free text cyclonedx-py leaves out. Whole licenses are no names.
_LICENSE_FIELDS = """
import importlib.metadata, json
packages = ((each.name, each.version, each.metadata["License"]) for each in importlib.metadata.distributions())
print(json.dumps([package for package in packages if package[2] and len(package[2]) < 80]))
"""
# The web server's image has the client's package alone.
_PROJECTS = {LOCKS["web"]: ROOT / "pyproject.toml"}
_SERVER = ROOT / "server" / "pyproject.toml"


def main() -> None:
    """Write `FOLDER/IMAGE.cdx.json` for each image."""
    parser = argparse.ArgumentParser(description="Write an SBOM of each image's Python packages.")
    parser.add_argument("folder", type=Path, help="where to write them")
    parser.add_argument("--environment", type=Path, required=True, help="the Python whose packages name the licenses")
    arguments = parser.parse_args()
    licenses = licenses_of(arguments.environment)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for image, lock in LOCKS.items():
        file = arguments.folder / f"{image}.cdx.json"
        bill = bill_of(lock, licenses)
        file.write_text(json.dumps(bill, indent=2) + "\n")
        licensed = sum("licenses" in component for component in bill["components"])
        print(f"{file}: {len(bill['components'])} packages, {licensed} of them with a license")  # noqa: T201


def bill_of(lock: Path, licenses: Mapping[tuple[str, str], list[Any]]) -> dict[str, Any]:
    """The bill of a lock file, with the licenses that are known."""
    bill = cyclonedx("requirements", lock)
    bill["metadata"]["component"] = image_component(lock)
    for component in bill["components"]:
        del component["description"]  # the lock file's line
        if "+" in component["version"]:
            component["externalReferences"][0]["url"] = f"{CPU_INDEX}/{component['name']}/"
        if known := licenses.get(_key(component["name"], component["version"])):
            component["licenses"] = known
    return bill


def image_component(lock: Path) -> dict[str, str]:
    """What a bill is about: the image that is built with a lock file."""
    project = tomllib.loads(_PROJECTS.get(lock, _SERVER).read_text())["project"]
    name = f"{project['name']}, with {lock.relative_to(ROOT)}"
    return {"bom-ref": "image", "type": "container", "name": name, "version": project["version"]}


def licenses_of(python: Path) -> dict[tuple[str, str], list[Any]]:
    """The licenses of an environment's packages in CycloneDX's form, by normalized name and public version."""
    found = {
        _key(name, version): [{"license": {"acknowledgement": "declared", "name": text}}]
        for name, version, text in json.loads(_output(python, "-c", _LICENSE_FIELDS))
    }
    for each in cyclonedx("environment", python)["components"]:
        if "licenses" in each:  # SPDX expressions, ids, or the names of classifiers
            found[_key(each["name"], each["version"])] = each["licenses"]
    return found


def _key(name: str, version: str) -> tuple[str, str]:
    return normalized(name), version.partition("+")[0]


def cyclonedx(*arguments: str | Path) -> dict[str, Any]:
    """Run cyclonedx-py. Returns the bill that it prints, without what differs from one run to the next."""
    # What is written in the end is something else, which the tests validate.
    options = ("--spec-version", "1.6", "--output-format", "JSON", "--output-reproducible", "--no-validate")
    return dict(json.loads(_output(_CYCLONEDX, *arguments, *options)))


def _output(*command: str | Path) -> bytes:
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


if __name__ == "__main__":
    main()
