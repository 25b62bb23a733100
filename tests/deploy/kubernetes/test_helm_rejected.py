"""Values that the chart refuses, with a message that names them: misspelled, out of range, or contradictory."""

import pytest

from tests.deploy.kubernetes.cases import COMMIT, example, merged

pytestmark = pytest.mark.deploy

_ROUTES = {
    "enabled": True,
    "parentRefs": [{"name": "public"}],
    "hostnames": ["one.example.com"],
    "namespace": "gateways",
}
_INGRESS = {"enabled": True, "host": "one.example.com", "namespace": "ingress"}
_HUB_MODEL = {"name": "captions", "checkpoint": f"owner/captions@{COMMIT}"}
_MODEL = {"name": "captions", "checkpoint": "/models/captions"}

# Combinations that cannot work, with the message that says so.
CONTRADICTIONS = {
    "fewer pods at most than at least": (
        {"autoscaling": {"minReplicas": 5, "maxReplicas": 2}},
        "autoscaling.minReplicas is 5, more than autoscaling.maxReplicas, 2",
    ),
    "a budget for all pods": (
        {"replicas": 3, "podDisruptionBudget": {"maxUnavailable": 3}},
        "podDisruptionBudget.maxUnavailable is 3, which would let all of 3 pods be evicted at once",
    ),
    "a budget for all pods of the autoscaler": (
        {"autoscaling": {"by": "hpa"}, "replicas": 9, "podDisruptionBudget": {"maxUnavailable": 2}},
        "maxUnavailable is 2, which would let all of 2 pods",
    ),
    "a budget that lets no node be drained": ({"podDisruptionBudget": {"maxUnavailable": "0%"}}, "/maxUnavailable"),
    "a probe longer than its period": (
        {"probes": {"readiness": {"timeoutSeconds": 30}}},
        "probes.readiness.timeoutSeconds is 30, more than its periodSeconds, 10",
    ),
    "a probe too short for Python": (
        {"ports": {"health": 0}, "probes": {"liveness": {"timeoutSeconds": 1}}},
        "/probes/liveness/timeoutSeconds",
    ),
    "liveness of a model that is not served": (
        {"models": [_MODEL], "probes": {"livenessPath": "/live/florence2"}},
        "probes.livenessPath is /live/florence2, but no model has that name: there is captions",
    ),
    "readiness of a model that is not served": (
        {"probes": {"readinessPath": "/ready/captions"}},
        "probes.readinessPath is /ready/captions, but no model has that name: there is florence2",
    ),
    "liveness of one model without the port of the probes": (
        {"ports": {"health": 0}, "probes": {"livenessPath": "/live/florence2"}},
        "probes.livenessPath is /live/florence2 with ports.health 0",
    ),
    "two services on one port": ({"ports": {"health": 8000}}, "ports.health and ports.http are both 8000"),
    "HTTP beside TLS": (
        {"service": {"http": True}, "tls": {"secretName": "grpc-tls"}},
        "service.http is true with tls.secretName: Triton's HTTP has no TLS",
    ),
    "a gateway to TLS": (
        {"gateway": _ROUTES, "tls": {"secretName": "grpc-tls"}},
        "gateway.hostnames with tls.secretName",
    ),
    "a gateway without a Gateway": ({"gateway": {**_ROUTES, "parentRefs": []}}, "/gateway/parentRefs"),
    "a gateway without host names": ({"gateway": {**_ROUTES, "hostnames": []}}, "/gateway/hostnames"),
    "a gateway that the network policy shuts out": ({"gateway": {**_ROUTES, "namespace": ""}}, "/gateway/namespace"),
    "a gateway with one host name for both": (
        {"gateway": {**_ROUTES, "httpHostnames": ["one.example.com"]}},
        "gateway.httpHostnames has one.example.com, a host name of gRPC",
    ),
    "a gateway for HTTP that is not served": (
        {"gateway": {**_ROUTES, "httpHostnames": ["two.example.com"]}, "service": {"http": False}},
        "gateway.httpHostnames, but HTTP is not served",
    ),
    "an ingress without a host": ({"ingress": {**_INGRESS, "host": ""}}, "/ingress/host"),
    "an ingress that the network policy shuts out": ({"ingress": {**_INGRESS, "namespace": ""}}, "/ingress/namespace"),
    "an ingress with one host name for both": (
        {"ingress": {**_INGRESS, "httpHost": "one.example.com"}},
        "ingress.httpHost is one.example.com, the host name of gRPC",
    ),
    "an ingress for HTTP that is not served": (
        {"ingress": {**_INGRESS, "httpHost": "two.example.com"}, "tls": {"secretName": "grpc-tls"}},
        "ingress.httpHost, but HTTP is not served",
    ),
    "a host name for a web server that is not enabled": (
        {"gateway": {**_ROUTES, "webHostnames": ["page.example.com"]}},
        "gateway.webHostnames, but web.enabled is false",
    ),
    "an ingress of a web server that is not enabled": (
        {"ingress": {**_INGRESS, "webHost": "page.example.com"}},
        "ingress.webHost, but web.enabled is false",
    ),
    "a gateway with one host name for the web server and gRPC": (
        {"web": {"enabled": True}, "gateway": {**_ROUTES, "webHostnames": ["one.example.com"]}},
        "gateway.webHostnames has one.example.com, a host name of gRPC or HTTP",
    ),
    "an ingress with one host name for the web server and gRPC": (
        {"web": {"enabled": True}, "ingress": {**_INGRESS, "webHost": "one.example.com"}},
        "ingress.webHost is one.example.com, the host name of gRPC or HTTP",
    ),
    "a web server without the certificate that the server requires": (
        {"web": {"enabled": True}, "tls": {"secretName": "grpc-tls", "mutual": True}},
        "web.clientSecretName is empty with tls.mutual",
    ),
    "a load balancer that the network policy shuts out": (
        {"service": {"type": "LoadBalancer"}},
        "service.type is LoadBalancer, but networkPolicy.clients has no ipBlock",
    ),
    "ranges of a load balancer without one": (
        {"service": {"loadBalancerSourceRanges": ["10.0.0.0/8"]}},
        "/service/loadBalancerSourceRanges",
    ),
    "CUDA without a GPU": ({"gpu": {"count": 0}, "settings": {"device": "cuda"}}, "/settings/device"),
    "models and a checkpoint on the hub": (
        {"weights": {"source": "hub", "hub": {"revision": COMMIT}}, "models": [_HUB_MODEL]},
        "/weights/hub/revision",
    ),
    "models and a checkpoint in the image": (
        {"weights": {"baked": {"path": "/models/one"}}, "models": [_MODEL]},
        "/weights/baked/path",
    ),
    "models and a checkpoint in a store": (
        {"weights": {"objectStore": {"url": ":s3:one"}}, "models": [_MODEL]},
        "/weights/objectStore/url",
    ),
    "models and a checkpoint on a claim": (
        {"weights": {"pvc": {"path": "one"}}, "models": [_MODEL]},
        "/weights/pvc/path",
    ),
    "a model of the hub without a commit": (
        {"weights": {"source": "hub"}, "models": [{"name": "captions", "checkpoint": "owner/captions@main"}]},
        "/models/0/checkpoint",
    ),
    "a model in the image without a folder": (
        {"models": [{"name": "captions", "checkpoint": "owner/captions"}]},
        "/models/0/checkpoint",
    ),
    "two volumes of adapters": (
        {"adapters": {"claimName": "adapters", "volume": {"emptyDir": {}}}},
        "adapters.claimName and adapters.volume: both say where the adapters are",
    ),
    "a folder of adapters without a volume": (
        {"adapters": {"path": "live"}},
        "adapters.path is live, but there is no volume",
    ),
    "one folder of adapters for all models": (
        {"adapters": {"claimName": "adapters", "path": "live"}, "models": [_MODEL]},
        "adapters.path is live with models",
    ),
    "adapters of a volume and of a setting": (
        {"adapters": {"claimName": "adapters"}, "settings": {"adapters": "/models/adapters"}},
        "settings.adapters is /models/adapters, but the volume of adapters says which are served",
    ),
    "adapters of a model without a volume": (
        {"models": [{**_MODEL, "adapters": "captions"}]},
        "model captions has the adapters captions, but there is no volume",
    ),
    "adapters of a model twice": (
        {
            "adapters": {"claimName": "adapters"},
            "models": [{**_MODEL, "adapters": "captions", "settings": {"adapters": "/models/adapters"}}],
        },
        "model captions has both adapters, captions, and settings.adapters, /models/adapters",
    ),
    "a volume of adapters that no model uses": (
        {"adapters": {"claimName": "adapters"}, "models": [_MODEL]},
        "there is a volume of adapters, but no model names its folder",
    ),
    "adapters on the hub": (
        {"settings": {"adapters": "invoices=/models/invoices,tags=owner/tags"}},
        "settings.adapters has owner/tags, which is not the path of a folder: pods download no adapters",
    ),
    "a model's adapters on the hub": (
        {"models": [{**_MODEL, "settings": {"adapters": "tags=owner/tags@main"}}]},
        "settings.adapters of model captions has owner/tags@main",
    ),
    "two models of one name": ({"models": [_MODEL, _MODEL]}, "models has captions twice"),
    "a model with the name of another's stream": ({"models": [{**_MODEL, "name": "a_stream"}]}, "/models/0/name"),
    "a model with a setting of the server": (
        {"models": [{**_MODEL, "settings": {"log_verbose": 1}}]},
        "/models/0/settings",
    ),
    "a model with a misspelled setting": ({"models": [{**_MODEL, "settings": {"slot": 1}}]}, "slot"),
    "a volume with the name of the chart's": (
        {"extraVolumes": [{"name": "tls", "emptyDir": {}}]},
        "/extraVolumes/0/name",
    ),
    "a mount over the chart's": (
        {"extraVolumeMounts": [{"name": "cache", "mountPath": "/tmp"}]},  # noqa: S108
        "/extraVolumeMounts/0/mountPath",
    ),
    "a second server": (
        {"extraContainers": [{"name": "server", "image": "example.com/proxy:1"}]},
        "/extraContainers/0/name",
    ),
    "settings by prefix": (
        {"extraEnvironmentFrom": [{"prefix": "FLORENCE2_", "configMapRef": {"name": "settings"}}]},
        "/extraEnvironmentFrom/0/prefix",
    ),
    "a runbook with an anchor": ({"prometheusRule": {"runbookUrl": "https://example.com/#runbook"}}, "/runbookUrl"),
}

REJECTED = {
    "hub without a commit": ({"weights": {"source": "hub"}}, "/weights/hub/revision"),
    "hub with a branch": ({"weights": {"source": "hub", "hub": {"revision": "main"}}}, "/weights/hub/revision"),
    "hub with half an id": ({"weights": {"hub": {"id": "Florence-2-base"}}}, "/weights/hub/id"),
    "store without a url": ({"weights": {"source": "objectStore"}}, "/weights/objectStore/url"),
    "store with a floating image": (
        {"weights": {"objectStore": {"image": "rclone/rclone:latest"}}},
        "/weights/objectStore/image",
    ),
    "store with an image without tag": (
        {"weights": {"objectStore": {"image": "registry:5000/rclone"}}},
        "/weights/objectStore/image",
    ),
    "claim without a name": ({"weights": {"source": "pvc"}}, "/weights/pvc/claimName"),
    "unknown source": ({"weights": {"source": "ftp"}}, "/weights/source"),
    "adapters outside their volume": (
        {"adapters": {"claimName": "adapters", "path": "/adapters/live"}},
        "/adapters/path",
    ),
    "a volume of adapters of two kinds": (
        {"adapters": {"volume": {"emptyDir": {}, "hostPath": {"path": "/"}}}},
        "/adapters/volume",
    ),
    "a volume of adapters with a name": ({"adapters": {"volume": {"name": {}}}}, "/adapters/volume"),
    "misspelled value": ({"replicaCount": 3}, "replicaCount"),
    "misspelled setting": ({"settings": {"slot": 3}}, "slot"),
    "setting out of range": ({"settings": {"slots": 0}}, "/settings/slots"),
    "setting of the wrong type": ({"settings": {"slots": "many"}}, "/settings/slots"),
    "setting that `weights` sets": ({"settings": {"checkpoint": "x"}}, "checkpoint"),
    "setting among the environment": (
        {"extraEnvironment": [{"name": "FLORENCE2_SLOTS", "value": "4"}]},
        "/extraEnvironment/0/name",
    ),
    "argument that is not a flag": ({"extraArguments": ["log"]}, "/extraArguments/0"),
    "digest without an algorithm": ({"image": {"digest": "5555"}}, "/image/digest"),
    "privileged port": ({"ports": {"grpc": 443}}, "/ports/grpc"),
    "mutual TLS without TLS": ({"tls": {"mutual": True}}, "/tls/mutual"),
    "GPU without a vendor": ({"gpu": {"resource": "gpu"}}, "/gpu/resource"),
    "resources without CPU": ({"resources": {"limits": {"cpu": None}}}, "/resources/limits"),
    "size with an unknown unit": ({"sharedMemory": "2GB"}, "/sharedMemory"),
    "size that cannot be added": ({"processMemory": "5.5Gi"}, "/processMemory"),
    "grace period too short": (
        {"shutdown": {"terminationGracePeriodSeconds": 60}},
        "shutdown.terminationGracePeriodSeconds is 60",
    ),
    "two autoscalers": ({"autoscaling": {"by": "both"}}, "/autoscaling/by"),
    "KEDA without a url": ({"autoscaling": {"keda": {"serverAddress": "prometheus:9090"}}}, "/keda/serverAddress"),
    "liveness that waits for readiness": ({"probes": {"livenessPath": "/ready"}}, "/probes/livenessPath"),
    "readiness of anything alive": ({"probes": {"readinessPath": "/live"}}, "/probes/readinessPath"),
    "a path without a name": ({"probes": {"livenessPath": "/live/"}}, "/probes/livenessPath"),
    "scrapes too rare for the alerts": ({"serviceMonitor": {"interval": "31s"}}, "/serviceMonitor/interval"),
    "scrapes every minute": ({"serviceMonitor": {"interval": "1m"}}, "/serviceMonitor/interval"),
    "no scrapes": ({"serviceMonitor": {"interval": "0s"}}, "/serviceMonitor/interval"),
    "misspelled value of the web server": ({"web": {"replica": 3}}, "replica"),
    "an origin with a path": ({"web": {"allowedOrigins": ["https://example.com/app"]}}, "/web/allowedOrigins/0"),
    "no requests of the web server": ({"web": {"concurrency": 0}}, "/web/concurrency"),
    "a privileged port of the web server": ({"web": {"port": 80}}, "/web/port"),
    "an extra argument that is not an option": ({"web": {"extraArguments": ["header=a"]}}, "/web/extraArguments/0"),
    "keys of a file outside the Secret": ({"web": {"apiKeys": {"key": "../keys"}}}, "/web/apiKeys/key"),
    "empty budget": ({"podDisruptionBudget": {"maxUnavailable": 0}}, "/podDisruptionBudget/maxUnavailable"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_combinations_that_cannot_work_are_refused_with_a_reason(render, case):
    import helm_python

    values, message = CONTRADICTIONS[case]
    with pytest.raises(helm_python.HelmError) as caught:
        render(values)
    assert message in str(caught.value)


@pytest.mark.parametrize("case", REJECTED)
def test_invalid_values_are_rejected_by_name(render, case):
    import helm_python

    values, name = REJECTED[case]
    with pytest.raises(helm_python.HelmError) as caught:
        render(values)
    assert name in str(caught.value)


def test_the_hub_example_requires_a_commit(render):
    import helm_python

    values = merged(example("a10"), {"weights": {"hub": {"revision": ""}}})
    with pytest.raises(helm_python.HelmError, match="/weights/hub/revision"):
        render(values)
    assert render(example("a10")).environment["FLORENCE2_CHECKPOINT"].endswith(COMMIT)
