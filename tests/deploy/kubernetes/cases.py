"""The values with which the tests render the chart."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "docker" / "helm" / "florence2-triton"
EXAMPLES = CHART / "examples"
NAME, NAMESPACE = "captions", "vision"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
Object = dict[str, Any]

# As in production, and as checkov requires: every case has it.
DIGEST = f"sha256:{'5' * 64}"
PINNED: Object = {
    "image": {"digest": DIGEST},
    "web": {"image": {"digest": DIGEST}},
    "weights": {"objectStore": {"image": f"rclone/rclone:1.71.0@{DIGEST}"}},
}


def merged(base: Object, over: Object) -> Object:
    """Return `base` with the values of `over`; maps are merged."""
    result = dict(base)
    for key, value in over.items():
        both_maps = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both_maps else value
    return result


def example(name: str) -> Object:
    """Return the values of an example, with those that its comment leaves to the command line."""
    values = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    if values.get("weights", {}).get("source") == "hub":
        return merged(values, {"weights": {"hub": {"revision": COMMIT}}})
    return dict(values)


_HUB: Object = {"weights": {"source": "hub", "hub": {"revision": COMMIT}}}
_STORE: Object = {"weights": {"source": "objectStore", "objectStore": {"url": ":s3,provider=AWS:models/florence-2"}}}
_TLS: Object = {"tls": {"secretName": "grpc-tls"}}
_PLACED: Object = {
    "imagePullSecrets": [{"name": "registry"}],
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "topologySpreadConstraints": [
        {
            "maxSkew": 2,
            "topologyKey": "rack",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "florence2-triton"}},
        }
    ],
    "runtimeClassName": "nvidia",
    "priorityClassName": "serving",
    "podAnnotations": {"example.com/owner": "vision"},
    "podLabels": {"example.com/team": "vision"},
}
_WATCHED: Object = {
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboard": {"enabled": True},
}
_SET: Object = {
    "settings": {"slots": 32, "embedding_cache_bytes": 268435456, "stuck_seconds": 90, "log_requests": 1},
    "extraEnvironment": [{"name": "OMP_NUM_THREADS", "value": "4"}],
    "extraArguments": ["--log-info=true"],
    "ports": {"http": 9000, "grpc": 9001, "metrics": 9002, "health": 9003, "grpcHealth": 9004},
    "adminKeySecret": {"name": "admin"},
}

_GATEWAY: Object = {
    "gateway": {
        "enabled": True,
        "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}],
        "hostnames": ["florence.example.com"],
        "httpHostnames": ["florence-http.example.com"],
        "annotations": {"example.com/owner": "vision"},
        "namespace": "gateways",
    }
}
_INGRESS: Object = {
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "host": "florence.example.com",
        "annotations": {"nginx.ingress.kubernetes.io/backend-protocol": "GRPC"},
        "httpHost": "florence-http.example.com",
        "tlsSecretName": "ingress-tls",
        "namespace": "ingress-nginx",
    }
}
_HELPER: Object = {
    "image": f"registry.example.com/helper:1.2.3@{DIGEST}",
    "imagePullPolicy": "Always",
    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "100m", "memory": "32Mi"}},
    "volumeMounts": [{"name": "certificates", "mountPath": "/certificates", "readOnly": True}],
}
_ALIVE: Object = {"httpGet": {"path": "/", "port": 9000}}
_ADDITIONS: Object = {
    "extraEnvironment": [{"name": "REGION", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}],
    "extraEnvironmentFrom": [{"configMapRef": {"name": "proxies"}}],
    "extraVolumes": [{"name": "certificates", "configMap": {"name": "authorities"}}],
    "extraVolumeMounts": [{"name": "certificates", "mountPath": "/certificates", "readOnly": True}],
    "extraInitContainers": [{"name": "wait", **_HELPER}],
    "extraContainers": [
        {"name": "proxy", **_HELPER, "livenessProbe": _ALIVE, "readinessProbe": _ALIVE},
    ],
}
# The values of each source, and two models that it holds; one of them has settings of its own.
_OWN: Object = {"slots": 4, "queue_bytes": 1 << 20, "start_seconds": 2400, "objective_short_seconds": 1.5}
_MODELS: dict[str, tuple[Object, list[Object]]] = {
    source: (
        {"weights": weights},
        [
            {"name": "captions", "checkpoint": one},
            {"name": "documents-2", "checkpoint": other, "settings": _OWN},
        ],
    )
    for source, weights, one, other in (
        ("baked", {"source": "baked"}, "/models/captions", "/models/documents"),
        ("hub", {"source": "hub"}, f"owner/captions@{COMMIT}", f"owner/documents@{COMMIT}"),
        ("store", {"source": "objectStore"}, ":s3:models/captions", ":s3:models/documents"),
        ("claim", {"source": "pvc", "pvc": {"claimName": "checkpoints"}}, "captions", "documents"),
    )
}

# One model with a folder of adapters, and one without.
_ADAPTED: Object = {
    "adapters": {"claimName": "adapters"},
    "models": [
        {"name": "captions", "checkpoint": "/models/captions", "adapters": "captions"},
        {"name": "documents-2", "checkpoint": "/models/documents"},
    ],
}

_WEB: Object = {"web": {"enabled": True}}
_WEB_SET: Object = {
    "imagePullSecrets": [{"name": "registry"}],
    "web": {
        "enabled": True,
        "replicas": 1,
        "port": 9080,
        "apiKeys": {"secretName": "callers", "key": "keys.txt"},
        "allowedOrigins": ["https://app.example.com"],
        "concurrency": 8,
        "maxBodyBytes": 1_000_000,
        "maxPixels": 50_000_000,
        "timeoutSeconds": 30,
        "extraArguments": ["--header=x-tenant=web"],
        "resources": {"limits": {"memory": "1Gi"}},
        "clients": [],
        "serviceAnnotations": {"example.com/owner": "vision"},
        "nodeSelector": {"pool": "cpu"},
        "tolerations": [{"key": "example.com/web", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "podAnnotations": {"example.com/owner": "vision"},
        "podLabels": {"example.com/team": "vision", "app.kubernetes.io/instance": "other"},
    },
}
_WEB_GATEWAY = merged(_WEB, merged(_GATEWAY, {"gateway": {"webHostnames": ["page.example.com"]}}))
_WEB_INGRESS = merged(
    _WEB,
    merged(
        _INGRESS,
        {
            "ingress": {
                "webHost": "page.example.com",
                "webAnnotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "32m"},
            }
        },
    ),
)
# Only the web server can be reached, through a route; it alone reaches the server.
_WEB_ALONE: Object = {
    "networkPolicy": {"clients": []},
    "test": {"enabled": False},
    "web": {"enabled": True, "clients": []},
    "gateway": {**_GATEWAY["gateway"], "hostnames": [], "httpHostnames": [], "webHostnames": ["page.example.com"]},
}

# Every example, and every switch turned on and off.
CASES: dict[str, Object] = {
    "defaults": {},
    **{f"example {file.stem}": example(file.stem) for file in sorted(EXAMPLES.glob("*.yaml"))},
    "weights baked elsewhere": {"weights": {"source": "baked", "baked": {"path": "/models/florence"}}},
    "weights from the hub": _HUB,
    "weights from a private repository, kept on a claim": merged(
        _HUB, {"weights": {"hub": {"tokenSecret": {"name": "hub"}}, "download": {"claimName": "checkpoints"}}}
    ),
    "weights from an object store": _STORE,
    "weights from an object store with credentials": merged(
        _STORE,
        {"weights": {"objectStore": {"secretName": "store", "environment": {"RCLONE_CONFIG": "/etc/object-store/r"}}}},
    ),
    "weights on a claim": {"weights": {"source": "pvc", "pvc": {"claimName": "checkpoints", "path": "base-ft"}}},
    "adapters on a claim": {"adapters": {"claimName": "adapters"}},
    "adapters in a folder of another volume": {
        "adapters": {"volume": {"nfs": {"server": "files.example.com", "path": "/exports"}}, "path": "base-ft/live"}
    },
    "adapters in the image": {"settings": {"adapters": "invoices=/models/invoices,tags=/models/tags"}},
    "models, adapters": _ADAPTED,
    "TLS": _TLS,
    "mutual TLS": merged(_TLS, {"tls": {"mutual": True}}),
    "mutual TLS with a client for the test": merged(
        _TLS, {"tls": {"mutual": True}, "test": {"clientSecretName": "client", "tlsServerName": "florence.example.com"}}
    ),
    "no HTTP": {"service": {"http": False}},
    "no health ports": {"ports": {"health": 0, "grpcHealth": 0}},
    "IPv6": {"address": "::"},
    "IPv6 without health ports": {"address": "::", "ports": {"health": 0, "grpcHealth": 0}},
    "models without health ports": {
        **_MODELS["baked"][0],
        "models": _MODELS["baked"][1],
        "ports": {"health": 0, "grpcHealth": 0},
    },
    "probes of one model": {
        **_MODELS["baked"][0],
        "models": _MODELS["baked"][1],
        "probes": {"livenessPath": "/live/captions", "readinessPath": "/ready/captions"},
    },
    "load balancer": {"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["203.0.113.0/24"]}},
    "node port": {"service": {"type": "NodePort"}, "networkPolicy": {"clients": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}},
    "gateway": _GATEWAY,
    "gateway for gRPC only": merged(_GATEWAY, {"gateway": {"httpHostnames": []}, "service": {"http": False}}),
    "ingress": _INGRESS,
    "ingress for gRPC with TLS to the pods": merged(merged(_INGRESS, _TLS), {"ingress": {"httpHost": ""}}),
    "no test": {"test": {"enabled": False}},
    "additions": _ADDITIONS,
    **{f"models, {source}": {**values, "models": models} for source, (values, models) in _MODELS.items()},
    "HPA": {"autoscaling": {"by": "hpa"}},
    "KEDA": {"autoscaling": {"by": "keda"}},
    "no network policy": {"networkPolicy": {"enabled": False}},
    "no ingress": {"networkPolicy": {"clients": [], "monitoring": []}, "test": {"enabled": False}},
    "no clients but the test": {"networkPolicy": {"clients": [], "monitoring": []}},
    "egress to a collector": {"networkPolicy": {"extraEgress": [{"ports": [{"port": 4318, "protocol": "TCP"}]}]}},
    "no disruption budget": {"podDisruptionBudget": {"enabled": False}},
    "disruption budget in percent": {"podDisruptionBudget": {"maxUnavailable": "25%"}},
    "existing service account": {"serviceAccount": {"create": False, "name": "shared"}},
    "annotated service account": {"serviceAccount": {"annotations": {"example.com/role": "reader"}}},
    "monitoring": _WATCHED,
    "scraped every 30 s": merged(_WATCHED, {"serviceMonitor": {"interval": "30s"}}),
    "a runbook elsewhere": merged(_WATCHED, {"prometheusRule": {"runbookUrl": "https://example.com/runbook"}}),
    "small images, long queue": {"settings": {"max_image_bytes": 1_000_000, "queue_bytes": 8 << 30}},
    "given sizes": {
        "sharedMemory": "3Gi",
        "processMemory": "512Mi",
        "resources": {"requests": {"memory": "6Gi"}, "limits": {"memory": "9Gi"}},
    },
    "no GPU": {"gpu": {"count": 0}},
    "two GPUs": {"gpu": {"count": 2}},
    "placed": _PLACED,
    "no spread": {"topologySpreadConstraints": []},
    "settings": _SET,
    "longer grace period": {"shutdown": {"terminationGracePeriodSeconds": 300}},
    "web": _WEB,
    "web, all values": _WEB_SET,
    "web, models": {**_WEB, **_MODELS["baked"][0], "models": _MODELS["baked"][1]},
    "web, TLS": merged(_WEB, _TLS),
    "web, mutual TLS": merged(
        merged(_WEB, _TLS),
        {"tls": {"mutual": True}, "web": {"clientSecretName": "client", "tlsServerName": "florence.example.com"}},
    ),
    "web, gateway": _WEB_GATEWAY,
    "web, ingress": _WEB_INGRESS,
    "web, nothing else reachable": _WEB_ALONE,
    "web, gateway to TLS": merged(_TLS, _WEB_ALONE),
    "web, no network policy": {**_WEB, "networkPolicy": {"enabled": False}},
    "web, IPv6 and another port": {**_WEB, "address": "::", "ports": {"grpc": 9001}},
    "another name": {"fullnameOverride": "florence"},
    "a very long name": {"fullnameOverride": "f" * 80},
    "everything": merged(
        merged(merged(_PLACED, _WATCHED), merged(_SET, _HUB)),
        merged(_TLS, {"tls": {"mutual": True}, "autoscaling": {"by": "hpa"}}),
    ),
}
