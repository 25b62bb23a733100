"""A pod's life: start, probes, updates, end."""

import re
import subprocess
import sys

import pytest

from tests.deploy.kubernetes.rendering import Release

pytestmark = pytest.mark.deploy


def test_the_grace_period_covers_everything_that_happens_in_it(release):
    before = release.server["lifecycle"]["preStop"]["sleep"]["seconds"]
    after = int(release.environment["FLORENCE2_EXIT_TIMEOUT_SECONDS"])
    assert before > 0
    assert release.pod["terminationGracePeriodSeconds"] >= before + after + 5


def test_a_longer_grace_period_is_kept(releases):
    assert releases["longer grace period"].pod["terminationGracePeriodSeconds"] == 300


def test_probes_look_through_to_the_engine(release):
    for name, wants_ready in (("startupProbe", True), ("readinessProbe", True), ("livenessProbe", False)):
        probe = release.server[name]
        command = probe["exec"]["command"]
        assert command[:2] == ["florence2", "health"]
        assert ("--ready" in command) == wants_ready
        assert f"--url=http://127.0.0.1:{release.environment['FLORENCE2_HTTP_PORT']}" in command
        (own_limit,) = [int(each.split("=")[1]) for each in command if each.startswith("--timeout=")]
        assert 0 < own_limit < probe["timeoutSeconds"]


def test_a_start_may_take_as_long_as_the_engine_is_given(release):
    probe = release.server["startupProbe"]
    patience = probe["periodSeconds"] * probe["failureThreshold"]
    assert patience > int(release.environment["FLORENCE2_START_SECONDS"])
    assert release.deployment["spec"]["progressDeadlineSeconds"] > patience


def probe_options(release: Release) -> set[str]:
    commands = [release.server[name]["exec"]["command"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    return {option.split("=")[0] for command in commands for option in command[2:]}


def health_help() -> str:
    code = "from florence2._cli import main; main(['health', '--help'])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_command_knows_the_probes_options(releases):
    known = set(re.findall(r"--[a-z-]+", health_help()))
    for case, release in releases.items():
        assert probe_options(release) <= known, case


def test_tls_files_are_where_the_server_is_told(releases):
    variables = ("CERTIFICATE", "KEY", "CLIENT_AUTHORITY")
    told = {
        case: [releases[case].environment.get(f"FLORENCE2_GRPC_TLS_{each}") for each in variables]
        for case in ("defaults", "TLS", "mutual TLS")
    }
    folder = "/etc/florence2/tls"
    assert told["defaults"] == [None, None, None]
    assert told["TLS"] == [f"{folder}/tls.crt", f"{folder}/tls.key", None]
    assert told["mutual TLS"] == [f"{folder}/tls.crt", f"{folder}/tls.key", f"{folder}/ca.crt"]
    assert folder in {mount["mountPath"] for mount in releases["TLS"].server["volumeMounts"]}


def test_updates_add_a_pod_before_they_take_one(release):
    assert release.deployment["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
