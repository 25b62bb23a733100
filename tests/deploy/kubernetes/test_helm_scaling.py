"""The number of pods, and what watches them."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

from tests.deploy.exported_metrics import EXPORTED
from tests.deploy.kubernetes.rendering import CASES, CHART, NAME, NAMESPACE, Release, merged, selects

pytestmark = pytest.mark.deploy

README = (CHART / "README.md").read_text()


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
