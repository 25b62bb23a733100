"""Look for known vulnerabilities of the images' packages; fail if there is one, or if a package could not be looked up.

pip-audit alone does not do the latter: if an index has no advisories, it skips every package and succeeds.

Usage: python -m requirements.audit, with the Python of an environment that has requirements/audit.txt, on a machine
that can reach PyPI.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from requirements.locks import LOCKS, LockedPackage, normalized, read_lock


class AuditError(Exception):
    """pip-audit failed, and reported nothing."""


def main() -> int:
    """Print what is wrong with each image's packages. Returns the exit status."""
    found = 0
    for image, lock in LOCKS.items():
        packages = read_lock(lock.read_text())
        problems = list(problems_of(report_on(packages), packages))
        found += len(problems)
        for problem in problems or [f"no known vulnerability in {len(packages)} packages"]:
            print(f"{image}: {problem}")  # noqa: T201 - a command's output
    return 1 if found else 0


def report_on(packages: Sequence[LockedPackage]) -> dict[str, Any]:
    """Run pip-audit on packages, by their public versions: no index knows `2.13.0+cpu`. Returns its report.

    Raises:
        AuditError: there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "requirements.txt"
        pins.write_text("".join(f"{each.name}=={each.public_version}\n" for each in packages))
        command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
        command += ["--format", "json", "--requirement", str(pins)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return dict(json.loads(done.stdout))
    except json.JSONDecodeError:
        raise AuditError(f"pip-audit ended with exit status {done.returncode}:\n{done.stderr}") from None


def problems_of(report: dict[str, Any], packages: Sequence[LockedPackage]) -> Iterator[str]:
    """What is wrong according to a report of pip-audit: each vulnerability, and each package without a verdict."""
    verdicts = {normalized(each["name"]): each for each in report["dependencies"]}
    for package in packages:
        verdict = verdicts.get(package.name, {"skip_reason": "pip-audit does not mention it"})
        if "skip_reason" in verdict:
            yield f"{package.name} {package.version} could not be looked up: {verdict['skip_reason']}"
        for advisory in verdict.get("vulns", ()):
            fixed = ", ".join(advisory["fix_versions"]) or "no release"
            yield f"{package.name} {package.version}: {advisory['id']}, fixed in {fixed}"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AuditError as error:
        sys.exit(str(error))
