"""What has to hold for the objects of the chart, whichever values it is given."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.deploy.exported_metrics import EXPORTED
from tests.deploy.kubernetes.rendering import (
    CASES,
    CHART,
    COMMIT,
    NAME,
    NAMESPACE,
    ROOT,
    Release,
    merged,
    selectors,
    selects,
)

pytestmark = pytest.mark.deploy

USER = 1000
README = (CHART / "README.md").read_text()
MODEL_CONFIG = ROOT / "model_repository" / "florence2" / "config.pbtxt"
ENTRYPOINT = ROOT / "docker" / "entrypoint.py"
# Settings of the chart's own making: other values decide them.
DECIDED_ELSEWHERE = {
    "CHECKPOINT",
    "ADDRESS",
    "HTTP_ADDRESS",
    "HTTP_PORT",
    "GRPC_PORT",
    "METRICS_PORT",
    "EXIT_TIMEOUT_SECONDS",
    "REQUIRE_GPU",
    "RESTRICTED_PROTOCOL_KEY",
    "RESTRICTED_PROTOCOL_KEY_FILE",
    "GRPC_TLS_CERTIFICATE",
    "GRPC_TLS_KEY",
    "GRPC_TLS_CLIENT_AUTHORITY",
}
ADAPTER_SETTINGS = {"LOG_REQUESTS"}


# Security.


def test_nothing_runs_as_root_or_may_become_it(release):
    security = release.pod["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (USER, USER, USER)
    assert security["runAsNonRoot"] is True
    for container in release.containers:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }


def test_nothing_of_the_host_is_shared(release):
    assert not {"hostNetwork", "hostPID", "hostIPC"} & release.pod.keys()
    assert not any("hostPath" in volume for volume in release.pod["volumes"])


def test_there_is_no_token_of_kubernetes(release):
    assert release.pod["automountServiceAccountToken"] is False
    for account in release.kind("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
        assert account["metadata"]["name"] == release.pod["serviceAccountName"]


def test_no_secret_is_rendered_or_put_into_the_environment(release):
    assert release.kind("Secret") == []
    assert "secretKeyRef" not in release.text
    for container in release.containers:
        secrets = {volume["name"] for volume in release.pod["volumes"] if "secret" in volume}
        assert all(mount["readOnly"] for mount in container["volumeMounts"] if mount["name"] in secrets)


def test_the_hubs_token_is_the_init_containers_alone(releases):
    release = releases["weights from a private repository, kept on a claim"]
    (init,) = release.pod["initContainers"]
    (mount,) = [mount for mount in init["volumeMounts"] if mount["name"] == "hub-token"]
    assert {"name": "HF_TOKEN_PATH", "value": f"{mount['mountPath']}/token"} in init["env"]
    assert "hub-token" not in {mount["name"] for mount in release.server["volumeMounts"]}


def test_who_is_let_in_and_out(releases):
    policy = releases["defaults"].one("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    callers, monitoring = policy["ingress"]
    assert [port["port"] for port in callers["ports"]] == ["http", "grpc"]
    assert callers["from"] == [{"podSelector": {}}]
    assert [port["port"] for port in monitoring["ports"]] == ["metrics"]
    assert monitoring["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert policy["egress"] == []
    assert releases["nobody let in"].one("NetworkPolicy")["spec"]["ingress"] == []


def test_every_rule_of_ingress_says_from_whom(release):
    """One without `from` would be for everybody."""
    for policy in release.kind("NetworkPolicy"):
        assert all(rule["from"] for rule in policy["spec"]["ingress"])


def test_pods_may_call_out_only_for_weights_or_where_they_are_told_to(releases):
    for case, release in releases.items():
        for policy in release.kind("NetworkPolicy"):
            out = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
            source = release.values.get("weights", {}).get("source", "baked")
            expected = {53, 443} if source in ("hub", "objectStore") else set()
            assert out == (expected or ({53, 4318} if case == "a collector let out to" else set())), case


# Names, labels and ports.


def test_names_fit_and_are_told_apart(release):
    found = [(each["kind"], each["metadata"]["name"]) for each in release.objects]
    assert len(found) == len(set(found))
    for each in release.objects:
        assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", each["metadata"]["name"])
        assert each["metadata"]["namespace"] == NAMESPACE


def test_every_selector_finds_the_pods(release):
    assert len(list(selectors(release))) >= 3
    assert all(selects(selector, release.pod_labels) for selector in selectors(release))
    for spread in release.pod.get("topologySpreadConstraints", []):
        assert selects(spread["labelSelector"]["matchLabels"], release.pod_labels)


def test_two_releases_do_not_touch_each_other(render):
    one, other = render(CASES["HPA"]), render(CASES["HPA"], name="grounding")
    assert not any(selects(selector, other.pod_labels) for selector in selectors(one))
    assert not {each["metadata"]["name"] for each in one.objects} & {each["metadata"]["name"] for each in other.objects}


def test_ports_are_the_same_everywhere(release):
    assert release.ports["grpc"] == int(release.environment["FLORENCE2_GRPC_PORT"])
    assert release.ports["metrics"] == int(release.environment["FLORENCE2_METRICS_PORT"])
    assert release.ports.get("http", -1) in (-1, int(release.environment["FLORENCE2_HTTP_PORT"]))
    for service in release.kind("Service"):
        for port in service["spec"]["ports"]:
            assert port["port"] == release.ports[port["targetPort"]]
    for policy in release.kind("NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            assert all(port["port"] in release.ports for port in rule["ports"])


def test_one_service_balances_and_one_names_every_pod(release):
    balancing, headless = sorted(release.kind("Service"), key=lambda each: each["spec"].get("clusterIP", ""))
    assert {port["name"] for port in balancing["spec"]["ports"]} == set(release.ports)
    assert headless["spec"]["clusterIP"] == "None"
    assert [port["name"] for port in headless["spec"]["ports"]] == ["grpc"]
    assert not headless["spec"].get("publishNotReadyAddresses")


def test_http_is_shut_where_grpc_has_tls(releases):
    for case in ("TLS", "mutual TLS", "no HTTP"):
        assert releases[case].environment["FLORENCE2_HTTP_ADDRESS"] == "127.0.0.1", case
        assert "http" not in releases[case].ports, case
        assert "port: http" not in releases[case].text, case
    for case in ("defaults", "TLS and HTTP without"):
        assert releases[case].environment["FLORENCE2_HTTP_ADDRESS"] == "0.0.0.0", case  # noqa: S104
        assert "http" in releases[case].ports, case


# A pod's life.


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


# Volumes and weights.


def test_every_mount_has_its_volume_and_every_volume_a_mount(release):
    volumes = [volume["name"] for volume in release.pod["volumes"]]
    assert len(volumes) == len(set(volumes))
    mounted = set()
    for container in release.containers:
        paths = [mount["mountPath"] for mount in container["volumeMounts"]]
        assert len(paths) == len(set(paths))
        mounted |= {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == set(volumes)


def test_what_the_server_writes_to_lies_in_memory(release):
    volumes = {volume["name"]: volume for volume in release.pod["volumes"]}
    writable = {
        mount["mountPath"]: volumes[mount["name"]]
        for mount in release.server["volumeMounts"]
        if not mount.get("readOnly")
    }
    assert set(writable) == {"/tmp", "/dev/shm"}  # noqa: S108
    for volume in writable.values():
        assert volume["emptyDir"]["medium"] == "Memory"
        assert volume["emptyDir"]["sizeLimit"]


def test_the_checkpoint_lies_on_a_volume_that_somebody_fills(release):
    source = release.values.get("weights", {}).get("source", "baked")
    if source == "baked":
        assert "weights" not in {volume["name"] for volume in release.pod["volumes"]}
        return
    checkpoint = release.environment["FLORENCE2_CHECKPOINT"]
    (mount,) = [mount for mount in release.server["volumeMounts"] if mount["name"] == "weights"]
    assert checkpoint.startswith(f"{mount['mountPath']}/")
    assert mount["readOnly"] is True
    if source == "pvc":
        assert "initContainers" not in release.pod
        return
    (init,) = release.pod["initContainers"]
    assert {"name": "weights", "mountPath": "/weights"} in init["volumeMounts"]
    told = [*init.get("command", []), *(each["value"] for each in init["env"])]
    assert any(checkpoint in each for each in told)


def test_baked_weights_are_the_images_business(releases):
    assert "FLORENCE2_CHECKPOINT" not in releases["defaults"].environment
    assert releases["weights baked elsewhere"].environment["FLORENCE2_CHECKPOINT"] == "/models/florence"


def test_the_hubs_command_is_one(releases, tmp_path):
    """Everything is right for the huggingface_hub that the image has too, but that there is no network."""
    release = releases["weights from the hub"]
    (init,) = release.pod["initContainers"]
    assert init["image"] == release.server["image"]
    assert f"--revision={COMMIT}" in init["command"]
    program, *arguments = init["command"]
    assert program == "hf"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from huggingface_hub.cli.hf import main; main()",
            *arguments,
            f"--local-dir={tmp_path}",
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "offline" in f"{done.stdout}{done.stderr}".lower()


def test_other_weights_get_another_folder(render):
    folders = {
        render({"weights": {"source": "objectStore", "objectStore": {"url": url}}}).environment["FLORENCE2_CHECKPOINT"]
        for url in ("s3://models/a", "s3://models/b")
    }
    assert len(folders) == 2


def test_only_the_server_gets_gpus(releases):
    assert releases["defaults"].server["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert releases["two GPUs"].server["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert releases["example h100-mig"].server["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == 1
    for case, release in releases.items():
        wants = release.values.get("gpu", {}).get("count", 1) > 0
        has = any("nvidia.com/" in name for name in release.server["resources"]["limits"])
        assert has == wants, case
        assert release.environment["FLORENCE2_REQUIRE_GPU"] == str(int(wants)), case
        assert (release.environment.get("NVIDIA_VISIBLE_DEVICES") == "void") != wants, case
        for init in release.pod.get("initContainers", []):
            assert not any("nvidia.com/" in name for name in init["resources"]["limits"]), case


# Settings.


def known_settings() -> set[str]:
    """What model and entrypoint read, without FLORENCE2_."""
    parameters = re.findall(r'parameters \{ key: "(\w+)"', MODEL_CONFIG.read_text())
    assert len(parameters) > 10
    entrypoint = re.findall(r'"FLORENCE2_(\w+)"', ENTRYPOINT.read_text())
    assert {"HTTP_PORT", "EXIT_TIMEOUT_SECONDS", "GRPC_TLS_CERTIFICATE"} <= set(entrypoint)
    return {name.upper() for name in parameters} | set(entrypoint) | ADAPTER_SETTINGS


@pytest.mark.skipif(not ENTRYPOINT.exists(), reason="docker/entrypoint.py is not there yet")
def test_the_server_knows_every_variable(release):
    variables = {name for name in release.environment if name.startswith("FLORENCE2_")}
    assert variables <= {f"FLORENCE2_{name}" for name in known_settings()}


@pytest.mark.skipif(not ENTRYPOINT.exists(), reason="docker/entrypoint.py is not there yet")
def test_every_setting_can_be_set():
    """A setting that is new to the server is new to values.schema.json too."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    listed = {name.upper() for name in schema["properties"]["settings"]["properties"]}
    assert listed == known_settings() - DECIDED_ELSEWHERE


def test_no_variable_is_set_twice(release):
    for container in release.containers:
        found = [each["name"] for each in container["env"]]
        assert len(found) == len(set(found))


def test_numbers_arrive_as_they_were_written(releases):
    environment = releases["settings"].environment
    assert environment["FLORENCE2_EMBEDDING_CACHE_BYTES"] == "268435456"
    assert environment["FLORENCE2_SLOTS"] == "32"
    assert environment["FLORENCE2_STUCK_SECONDS"] == "90"
    assert environment["FLORENCE2_LOG_REQUESTS"] == "true"


def test_services_of_the_namespace_do_not_become_settings(release):
    """A Service called florence2-http would set FLORENCE2_HTTP_PORT, to tcp://..."""
    assert release.pod["enableServiceLinks"] is False


def test_more_flags_and_variables_reach_the_server(releases):
    assert releases["settings"].server["args"] == ["--log-info=true"]
    assert releases["settings"].environment["OMP_NUM_THREADS"] == "4"


# Scaling and monitoring.


def adapter_rule() -> dict:
    (text,) = re.findall(r"```yaml\n(rules:.*?)```", README, flags=re.DOTALL)
    (rule,) = yaml.safe_load(text)["rules"]["custom"]
    return dict(rule)


def keda_query(release: Release) -> str:
    (trigger,) = release.one("ScaledObject")["spec"]["triggers"]
    return str(trigger["metadata"]["query"])


def test_the_number_of_pods_has_one_master(release):
    scalers = release.kind("HorizontalPodAutoscaler") + release.kind("ScaledObject")
    assert len(scalers) <= 1
    assert ("replicas" in release.deployment["spec"]) == (not scalers)
    for scaler in scalers:
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("Deployment", release.deployment["metadata"]["name"])


def test_the_hpa_waits_before_it_takes_pods_away(releases):
    scaler = releases["HPA"].one("HorizontalPodAutoscaler")["spec"]
    assert scaler["minReplicas"] < scaler["maxReplicas"]
    assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 600
    (metric,) = scaler["metrics"]
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "700m"}
    assert metric["pods"]["metric"]["name"] == adapter_rule()["name"]["as"]


def test_keda_does_the_same_as_the_hpa(releases):
    keda, hpa = releases["KEDA"].one("ScaledObject")["spec"], releases["HPA"].one("HorizontalPodAutoscaler")["spec"]
    (trigger,) = keda["triggers"]
    assert (trigger["type"], trigger["metricType"]) == ("prometheus", "AverageValue")
    assert trigger["metadata"]["threshold"] == "0.7"
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["behavior"]
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == (hpa["minReplicas"], hpa["maxReplicas"])


def test_queries_ask_for_series_that_are_exported(releases):
    for query in (keda_query(releases["KEDA"]), adapter_rule()["seriesQuery"], adapter_rule()["metricsQuery"]):
        names = set(re.findall(r"\b(?:nv|florence2)_\w+", query))
        assert names
        assert names <= EXPORTED.keys()


def test_prometheus_works_the_load_out(releases, tmp_path):
    """Two pods of 16 slots: one has 16 taken and 8 waiting, 1.5; the other 4 taken, 0.25. Others do not count."""
    promtool = shutil.which("promtool")
    assert promtool, "Debian's prometheus brings promtool"
    full, idle = (f"{NAME}-florence2-triton-6b7f9d8c5-{each}" for each in ("x2x4z", "b8w9k"))
    pods = {full: (8, 16, 16), idle: (0, 4, 16), "captions-florence2-triton-ft-6b7f9d8c5-x2x4z": (99, 16, 16)}
    series = [
        {"series": f'{name}{{namespace="{NAMESPACE}",pod="{pod}"}}', "values": str(value)}
        for pod, values in pods.items()
        for name, value in zip(
            ("nv_inference_pending_request_count", "florence2_slots_in_use", "florence2_slots"), values, strict=True
        )
    ]
    for each in series:
        each["series"] = each["series"].replace("count{", 'count{model="florence2",version="1",')
    by_pod = adapter_rule()["metricsQuery"].replace("<<.GroupBy>>", "pod")
    by_pod = by_pod.replace("<<.LabelMatchers>>", f'namespace="{NAMESPACE}",pod=~"{full}|{idle}"')
    tests = [
        {"expr": keda_query(releases["KEDA"]), "eval_time": "0", "exp_samples": [{"labels": "{}", "value": 1.75}]},
        {
            "expr": by_pod,
            "eval_time": "0",
            "exp_samples": [
                {"labels": f'{{pod="{full}"}}', "value": 1.5},
                {"labels": f'{{pod="{idle}"}}', "value": 0.25},
            ],
        },
    ]
    file = tmp_path / "load.yaml"
    file.write_text(yaml.safe_dump({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}]}))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_monitor_finds_one_service_and_its_port(releases):
    """Two would count every pod twice."""
    release = releases["monitoring"]
    monitor = release.one("ServiceMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = monitor["spec"]["endpoints"]
    found = [
        service
        for service in release.kind("Service")
        if selects(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])
    ]
    (service,) = found
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["path"] == "/metrics"


def test_the_alerts_take_every_release_for_ours(render):
    """They look for "florence2" in the name of the job, and tell releases apart by it."""
    jobs = set()
    for values in ({}, {"fullnameOverride": "captions"}, {"fullnameOverride": "ocr", "nameOverride": "ocr"}):
        (endpoint,) = render(merged(CASES["monitoring"], values)).one("ServiceMonitor")["spec"]["endpoints"]
        (relabeling,) = endpoint["relabelings"]
        assert relabeling["targetLabel"] == "job"
        assert "florence2" in relabeling["replacement"]
        jobs.add(relabeling["replacement"])
    assert len(jobs) == 3


def test_rules_and_dashboard_arrive_whole(releases):
    release = releases["monitoring"]
    rule = release.one("PrometheusRule")
    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    assert rule["spec"] == yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    dashboard = release.one("ConfigMap")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["florence2.json"]) == json.loads(
        (CHART / "files" / "dashboard.json").read_text()
    )


def test_switches_switch(releases):
    switched = {
        "NetworkPolicy": ("defaults", "no network policy"),
        "PodDisruptionBudget": ("defaults", "no disruption budget"),
        "ServiceAccount": ("defaults", "somebody's service account"),
        "HorizontalPodAutoscaler": ("HPA", "KEDA"),
        "ScaledObject": ("KEDA", "HPA"),
        "ServiceMonitor": ("monitoring", "defaults"),
        "PrometheusRule": ("monitoring", "defaults"),
        "ConfigMap": ("monitoring", "defaults"),
    }
    for kind, (on, off) in switched.items():
        assert len(releases[on].kind(kind)) == 1, kind
        assert releases[off].kind(kind) == [], kind


def test_where_pods_go_is_the_users_to_say(releases):
    values, pod = CASES["placed"], releases["placed"].pod
    for name in (
        "imagePullSecrets",
        "nodeSelector",
        "tolerations",
        "affinity",
        "topologySpreadConstraints",
        "runtimeClassName",
        "priorityClassName",
    ):
        assert pod[name] == values[name], name
    assert "topologySpreadConstraints" not in releases["no spread"].pod
    assert releases["placed"].pod_labels["example.com/team"] == "vision"


def test_labels_of_the_users_cannot_take_the_selectors_away(render):
    mine = {"podLabels": {"app.kubernetes.io/instance": "other"}}
    assert render(mine).pod_labels["app.kubernetes.io/instance"] == NAME


def test_images_are_pinned(render):
    plain = render(merged({}, {"image": {"digest": "", "tag": "1.2.3"}})).server["image"]
    assert plain == "florence2-triton:1.2.3"
    assert re.fullmatch(r"florence2-triton:[\d.]+@sha256:5{64}", render({}).server["image"])
