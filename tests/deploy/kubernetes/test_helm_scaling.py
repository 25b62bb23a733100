"""Autoscaling and monitoring."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

from tests.deploy.exported_metrics import EXPORTED
from tests.deploy.kubernetes.cases import CASES, CHART, NAME, NAMESPACE, ROOT, merged
from tests.deploy.kubernetes.rendering import Release, selects

pytestmark = pytest.mark.deploy

README = (CHART / "README.md").read_text()


def adapter_rule() -> dict:
    (text,) = re.findall(r"```yaml\n(rules:.*?)```", README, flags=re.DOTALL)
    (rule,) = yaml.safe_load(text)["rules"]["custom"]
    return dict(rule)


def keda_query(release: Release) -> str:
    (trigger,) = release.one("ScaledObject")["spec"]["triggers"]
    return str(trigger["metadata"]["query"])


def test_at_most_one_autoscaler_sets_the_number_of_pods(release):
    scalers = release.kind("HorizontalPodAutoscaler") + release.kind("ScaledObject")
    assert len(scalers) <= 1
    assert ("replicas" in release.deployment["spec"]) == (not scalers)
    for scaler in scalers:
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("Deployment", release.deployment["metadata"]["name"])


def test_the_hpa_waits_before_it_removes_pods(releases):
    scaler = releases["HPA"].one("HorizontalPodAutoscaler")["spec"]
    assert scaler["minReplicas"] < scaler["maxReplicas"]
    assert scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 600
    (metric,) = scaler["metrics"]
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "700m"}
    assert metric["pods"]["metric"]["name"] == adapter_rule()["name"]["as"]


def test_keda_scales_like_the_hpa(releases):
    keda, hpa = releases["KEDA"].one("ScaledObject")["spec"], releases["HPA"].one("HorizontalPodAutoscaler")["spec"]
    (trigger,) = keda["triggers"]
    assert (trigger["type"], trigger["metricType"]) == ("prometheus", "AverageValue")
    assert trigger["metadata"]["threshold"] == "0.7"
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["behavior"]
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == (hpa["minReplicas"], hpa["maxReplicas"])


def test_queries_use_exported_series(releases):
    for query in (keda_query(releases["KEDA"]), adapter_rule()["seriesQuery"], adapter_rule()["metricsQuery"]):
        names = set(re.findall(r"\b(?:nv|florence2)_\w+", query))
        assert names
        assert names <= EXPORTED.keys()


def test_prometheus_computes_the_load(releases, tmp_path):
    """Two pods of 16 slots: one with 16 in use and 8 waiting, 1.5; one with 4 in use, 0.25. Others do not count."""
    promtool = shutil.which("promtool")
    assert promtool, "Debian's package prometheus has promtool"
    full, idle = (f"{NAME}-florence2-triton-6b7f9d8c5-{each}" for each in ("x2x4z", "b8w9k"))
    pods = {full: (8, 16, 16), idle: (0, 4, 16), "captions-florence2-triton-ft-6b7f9d8c5-x2x4z": (99, 16, 16)}
    series = [
        {"series": f'{name}{{namespace="{NAMESPACE}",pod="{pod}"}}', "values": str(value)}
        for pod, values in pods.items()
        for name, value in zip(
            ("florence2_waiting_requests", "florence2_slots_in_use", "florence2_slots"), values, strict=True
        )
    ]
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


def test_the_monitor_selects_one_service_and_its_port(releases):
    """Two services would count every pod twice."""
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
    assert service["spec"]["type"] == "ClusterIP", "the other Service may be open to the outside"


def test_the_monitor_drops_what_composes_prometheus_drops(releases):
    """tests/deploy/test_scrape.py runs a Prometheus with the latter."""
    (endpoint,) = releases["monitoring"].one("ServiceMonitor")["spec"]["endpoints"]
    (scrape, _) = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    (dropped,) = scrape["metric_relabel_configs"]
    assert endpoint["metricRelabelings"] == [{"sourceLabels": dropped.pop("source_labels"), **dropped}]


def test_the_alerts_match_every_release(render):
    """They select jobs with "florence2" in their names, which differ between releases."""
    jobs = set()
    for values in ({}, {"fullnameOverride": "captions"}, {"fullnameOverride": "ocr", "nameOverride": "ocr"}):
        (endpoint,) = render(merged(CASES["monitoring"], values)).one("ServiceMonitor")["spec"]["endpoints"]
        (relabeling,) = endpoint["relabelings"]
        assert relabeling["targetLabel"] == "job"
        assert "florence2" in relabeling["replacement"]
        jobs.add(relabeling["replacement"])
    assert len(jobs) == 3


def test_rules_and_dashboard_are_rendered_unchanged(releases):
    release = releases["monitoring"]
    rule = release.one("PrometheusRule")
    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    assert rule["spec"] == yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    dashboard = release.one("ConfigMap")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    for name, file in (("florence2.json", "dashboard.json"), ("runbook.json", "runbook.json")):
        assert json.loads(dashboard["data"][name]) == json.loads((CHART / "files" / file).read_text())


def test_the_address_of_the_runbook_is_that_of_the_values(render):
    """The rest of each address, which names the alert, stays."""
    rules = render(CASES["a runbook elsewhere"]).one("PrometheusRule")["spec"]
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    assert alerts
    for alert in alerts:
        url = alert["annotations"]["runbook_url"]
        assert re.fullmatch(rf"https://example\.com/runbook\?viewPanel=\d+#{alert['alert'].lower()}", url)


def test_the_longest_scrape_interval_leaves_each_window_of_the_rules_four_scrapes(releases):
    """increase() and rate() need two samples in a window, and one scrape may fail."""
    (endpoint,) = releases["scraped every 30 s"].one("ServiceMonitor")["spec"]["endpoints"]
    windows = re.findall(r"\[(\d+[smhd])\]", (CHART / "files" / "rules.yaml").read_text())
    shortest = min(int(each[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[each[-1]] for each in windows)
    assert shortest == 4 * int(endpoint["interval"].removesuffix("s")) == 120
