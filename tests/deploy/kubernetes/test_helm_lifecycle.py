"""The life cycle of a pod: start, probes, updates, shutdown."""

import pytest
from florence2_server.health_command import _parser

pytestmark = pytest.mark.deploy


def test_the_grace_period_covers_the_whole_shutdown(release):
    before = release.server["lifecycle"]["preStop"]["sleep"]["seconds"]
    after = int(release.environment["FLORENCE2_EXIT_TIMEOUT_SECONDS"])
    assert before > 0
    assert release.pod["terminationGracePeriodSeconds"] >= before + after + 5


def test_a_longer_grace_period_is_kept(releases):
    assert releases["longer grace period"].pod["terminationGracePeriodSeconds"] == 300


PROBES = {"startupProbe": "/ready", "readinessProbe": "/ready", "livenessProbe": "/live"}


def test_probes_ask_the_port_that_knows_the_engines(release):
    """Startup and readiness wait for the engines; liveness lets them load."""
    for name, path in PROBES.items():
        probe = release.server[name]
        if "health" in release.ports:
            assert probe["httpGet"]["path"] in (path, f"{path}/captions")
            assert probe["httpGet"]["port"] == "health"
            assert "exec" not in probe
        assert probe["timeoutSeconds"] <= probe["periodSeconds"]


def test_probes_can_be_about_one_model_once_all_have_loaded(releases):
    paths = {
        case: [releases[case].server[name]["httpGet"]["path"] for name in PROBES]
        for case in ("models, baked", "probes of one model")
    }
    assert paths["models, baked"] == ["/ready", "/ready", "/live"]
    assert paths["probes of one model"] == ["/ready", "/ready/captions", "/live/captions"]


@pytest.mark.parametrize("case", ["no health ports", "IPv6 without health ports", "models without health ports"])
def test_without_that_port_probes_run_the_servers_own_command(releases, case):
    """It knows from the environment where the server listens, whatever its address is."""
    release = releases[case]
    assert not {"health", "grpc-health"} & release.ports.keys()
    for name, path in PROBES.items():
        probe = release.server[name]
        assert "httpGet" not in probe
        program, command, *arguments = probe["exec"]["command"]
        assert (program, command) == ("florence2-server", "health")
        options = _parser().parse_args(arguments)  # exits if one is unknown
        assert options.ready == (path == "/ready")
        assert 0 < options.timeout < probe["timeoutSeconds"]


def test_the_startup_probe_waits_as_long_as_the_engine_may_take(release):
    probe = release.server["startupProbe"]
    patience = probe["periodSeconds"] * probe["failureThreshold"]
    assert patience > max(int(settings["FLORENCE2_START_SECONDS"]) for settings in release.models)
    assert release.deployment["spec"]["progressDeadlineSeconds"] > patience


def test_tls_files_are_mounted_where_the_variables_say(releases):
    variables = ("CERTIFICATE", "KEY", "CLIENT_AUTHORITY")
    variables_of = {
        case: [releases[case].environment.get(f"FLORENCE2_GRPC_TLS_{each}") for each in variables]
        for case in ("defaults", "TLS", "mutual TLS")
    }
    folder = "/etc/florence2/tls"
    assert variables_of["defaults"] == [None, None, None]
    assert variables_of["TLS"] == [f"{folder}/tls.crt", f"{folder}/tls.key", None]
    assert variables_of["mutual TLS"] == [f"{folder}/tls.crt", f"{folder}/tls.key", f"{folder}/ca.crt"]
    assert folder in {mount["mountPath"] for mount in releases["TLS"].server["volumeMounts"]}


def test_updates_add_a_pod_before_they_remove_one(release):
    assert release.deployment["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
