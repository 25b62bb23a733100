"""The chart as Helm renders it, as objects that tests can ask."""

import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "docker" / "helm" / "florence2-triton"
EXAMPLES = CHART / "examples"
NAME, NAMESPACE = "captions", "vision"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
Object = dict[str, Any]

# What production does, and what checkov wants: every case has it.
DIGEST = f"sha256:{'5' * 64}"
PINNED: Object = {
    "image": {"digest": DIGEST},
    "weights": {"objectStore": {"image": f"rclone/rclone:1.71.0@{DIGEST}"}},
}


def merged(base: Object, over: Object) -> Object:
    """`base` with the values of `over`, maps merged."""
    result = dict(base)
    for key, value in over.items():
        both_maps = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both_maps else value
    return result


def example(name: str) -> Object:
    """The values of an example, with what its comment leaves to the command line."""
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
    "ports": {"http": 9000, "grpc": 9001, "metrics": 9002},
    "adminKeySecret": {"name": "admin"},
}

# Every example, and every switch on and off.
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
    "TLS": _TLS,
    "mutual TLS": merged(_TLS, {"tls": {"mutual": True}}),
    "TLS and HTTP without": merged(_TLS, {"service": {"http": True}}),
    "no HTTP": {"service": {"http": False}},
    "HPA": {"autoscaling": {"by": "hpa"}},
    "KEDA": {"autoscaling": {"by": "keda"}},
    "no network policy": {"networkPolicy": {"enabled": False}},
    "nobody let in": {"networkPolicy": {"clients": [], "monitoring": []}},
    "a collector let out to": {"networkPolicy": {"extraEgress": [{"ports": [{"port": 4318, "protocol": "TCP"}]}]}},
    "no disruption budget": {"podDisruptionBudget": {"enabled": False}},
    "disruption budget in percent": {"podDisruptionBudget": {"maxUnavailable": "25%"}},
    "somebody's service account": {"serviceAccount": {"create": False, "name": "shared"}},
    "annotated service account": {"serviceAccount": {"annotations": {"example.com/role": "reader"}}},
    "monitoring": _WATCHED,
    "no GPU": {"gpu": {"count": 0}},
    "two GPUs": {"gpu": {"count": 2}},
    "placed": _PLACED,
    "no spread": {"topologySpreadConstraints": []},
    "settings": _SET,
    "longer grace period": {"shutdown": {"terminationGracePeriodSeconds": 300}},
    "another name": {"fullnameOverride": "florence"},
    "a very long name": {"fullnameOverride": "f" * 80},
    "everything": merged(
        merged(merged(_PLACED, _WATCHED), merged(_SET, _HUB)),
        merged(_TLS, {"tls": {"mutual": True}, "autoscaling": {"by": "hpa"}}),
    ),
}


@dataclasses.dataclass(frozen=True)
class Release:
    """What one set of values renders to.

    Attributes:
        values: the values that were given.
        text: all manifests.
    """

    values: Object
    text: str

    @functools.cached_property
    def objects(self) -> list[Object]:
        """All objects of Kubernetes."""
        return [each for each in yaml.load_all(self.text, yaml.CSafeLoader) if each]

    def kind(self, kind: str) -> list[Object]:
        """The objects of a kind."""
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str) -> Object:
        """The only object of a kind."""
        (found,) = self.kind(kind)
        return found

    @property
    def deployment(self) -> Object:
        return self.one("Deployment")

    @property
    def pod(self) -> Object:
        """The pod's spec."""
        return dict(self.deployment["spec"]["template"]["spec"])

    @property
    def pod_labels(self) -> dict[str, str]:
        return dict(self.deployment["spec"]["template"]["metadata"]["labels"])

    @property
    def server(self) -> Object:
        """The server's container."""
        (found,) = self.pod["containers"]
        return dict(found)

    @property
    def containers(self) -> list[Object]:
        """The server's and the init containers."""
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    @property
    def environment(self) -> dict[str, str]:
        """The server's variables that have a value."""
        return {each["name"]: each["value"] for each in self.server["env"] if "value" in each}

    @property
    def ports(self) -> dict[str, int]:
        """The server's ports by name."""
        return {each["name"]: each["containerPort"] for each in self.server["ports"]}


def manifests(rendered: Mapping[str, str]) -> str:
    """All YAML of a rendering as one text."""
    return "\n---\n".join(text for name, text in sorted(rendered.items()) if name.endswith(".yaml"))


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a selector's matchLabels select an object with `labels`."""
    return bool(selector) and selector.items() <= labels.items()


def selectors(release: Release) -> Iterator[Mapping[str, str]]:
    """Everything in a release that selects its pods."""
    yield release.deployment["spec"]["selector"]["matchLabels"]
    for service in release.kind("Service"):
        yield service["spec"]["selector"]
    for budget in release.kind("PodDisruptionBudget"):
        yield budget["spec"]["selector"]["matchLabels"]
    for policy in release.kind("NetworkPolicy"):
        yield policy["spec"]["podSelector"]["matchLabels"]


def unlike(objects: Iterator[Object]) -> list[Object]:
    """The objects without repetitions: most cases change one of theirs."""
    texts = sorted({json.dumps(each, sort_keys=True) for each in objects})
    return [json.loads(text) for text in texts]


def all_objects(releases: Mapping[str, Release]) -> list[Object]:
    """Every different object of all releases."""
    return unlike(itertools.chain.from_iterable(release.objects for release in releases.values()))
