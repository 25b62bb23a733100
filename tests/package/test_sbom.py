"""`make sbom` and `make audit`: the images' packages as bills of materials, and what counts as a failed audit."""

import json
import subprocess
import sys

import pytest

from requirements.audit import problems_of
from requirements.locks import LOCKS, LockedPackage, read_lock
from tests.conftest import ROOT

pytestmark = pytest.mark.package

AUDIT_PYTHON = ROOT / "build" / "audit" / "bin" / "python"
VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
for file in sys.argv[1:]:
    with open(file) as bill:
        error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill.read())
    if error:
        sys.exit(f"{file}: {error}")
"""


def run(*arguments) -> subprocess.CompletedProcess[str]:
    """Run the Python of the environment of these tools, in the root of the checkout."""
    assert AUDIT_PYTHON.exists(), "make test-package installs cyclonedx-bom and pip-audit"
    return subprocess.run([AUDIT_PYTHON, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def bills(tmp_path_factory):
    """The folder of the bills."""
    folder = tmp_path_factory.mktemp("sbom")
    done = run("-m", "requirements.sbom", folder, "--environment", sys.executable)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(params=LOCKS)
def image(request):
    return request.param


def packages_of(image: str) -> list[LockedPackage]:
    return read_lock(LOCKS[image].read_text())


def test_the_bills_are_valid_cyclonedx(bills):
    done = run("-c", VALIDATE, *sorted(bills.iterdir()))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list(bills.iterdir())) == len(LOCKS) == 3


def test_a_bill_lists_every_locked_package_with_version_url_and_hashes(bills, image):
    components = json.loads((bills / f"{image}.cdx.json").read_text())["components"]
    found = [
        LockedPackage(each["name"].lower().replace("_", "-"), each["version"], hashes(each)) for each in components
    ]
    packages = packages_of(image)
    assert sorted(found, key=str) == sorted(packages, key=str)
    assert LOCKS[image].read_text().count("==") == len(packages)
    urls = {f"pkg:pypi/{each.name}@{each.version.replace('+', '%2B')}" for each in packages}
    assert {each["purl"] for each in components} == urls


def hashes(component: dict) -> frozenset[str]:
    (files,) = component["externalReferences"]
    assert {each["alg"] for each in files["hashes"]} == {"SHA-256"}
    return frozenset(each["content"] for each in files["hashes"])


def test_packages_that_are_installed_here_have_a_license(bills, image, figure):
    """Only CUDA's packages are not installed by `make install` on a machine without a GPU."""
    components = json.loads((bills / f"{image}.cdx.json").read_text())["components"]
    unlicensed = [each["name"] for each in components if not each.get("licenses")]
    figure(f"{image} image: packages in the SBOM", len(components))
    figure(f"{image} image: packages in the SBOM without a known license", len(unlicensed))
    assert [name for name in unlicensed if not name.startswith(("nvidia-", "cuda-", "triton"))] == []


def test_an_audit_fails_if_packages_could_not_be_looked_up(figure):
    """Where the package index has no advisories, as here, pip-audit skips every package, and succeeds.

    Where it has them, new ones must not fail this test. Where no index can be reached, the audit says so.
    """
    done = run("-m", "requirements.audit")
    lines = done.stdout.splitlines()
    if not lines:
        figure("package indexes that make audit could reach here", 0)
        assert (done.returncode, done.stderr.partition(" 1:")[0]) == (1, "pip-audit ended with exit status")
        return
    skipped = [line for line in lines if " could not be looked up: " in line]
    figure("packages of the images that pip-audit could not look up here, each named by make audit", len(skipped))
    assert {line.partition(": ")[0] for line in lines} == set(LOCKS), done.stderr
    assert all(" fixed in " in line or " no known vulnerability in " in line for line in lines if line not in skipped)
    assert done.returncode == any(" no known vulnerability in " not in line for line in lines)
    if len(skipped) == len(lines):
        named = [f"{image}: {each.name} {each.version}" for image in LOCKS for each in packages_of(image)]
        assert [line.partition(" could not")[0] for line in skipped] == named


REPORT = {
    "dependencies": [
        {"name": "good", "version": "1.0", "vulns": []},
        {"name": "Bad_one", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]},
        {"name": "worse", "version": "1.0", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]},
        {"name": "unknown", "skip_reason": "not found on PyPI"},
    ]
}


def test_an_audit_names_each_vulnerability_and_each_package_without_a_verdict():
    names = ("good", "bad-one", "worse", "unknown", "forgotten")
    assert list(problems_of(REPORT, [LockedPackage(name, "1.0", frozenset()) for name in names])) == [
        "bad-one 1.0: PYSEC-1, fixed in 1.1",
        "worse 1.0: PYSEC-2, fixed in no release",
        "unknown 1.0 could not be looked up: not found on PyPI",
        "forgotten 1.0 could not be looked up: pip-audit does not mention it",
    ]
