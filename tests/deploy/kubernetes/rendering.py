"""The chart as Helm renders it, as Python objects."""

import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator, Mapping

import yaml

from tests.deploy.kubernetes.cases import Object


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
        """The objects of a kind, without those of the web server."""
        return [each for each in self.objects if each["kind"] == kind and not _is_web(each)]

    def web(self, kind: str) -> list[Object]:
        """The web server's objects of a kind."""
        return [each for each in self.objects if each["kind"] == kind and _is_web(each)]

    def one(self, kind: str) -> Object:
        """The only object of a kind."""
        (found,) = self.kind(kind)
        return found

    @property
    def policies(self) -> list[Object]:
        """The network policies of the server's pods: one, or none."""
        return [each for each in self.kind("NetworkPolicy") if not each["metadata"]["name"].endswith("-test")]

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
        (found,) = [each for each in self.pod["containers"] if each["name"] == "server"]
        return dict(found)

    @property
    def downloads(self) -> list[Object]:
        """The init containers that fetch weights."""
        return [each for each in self.pod.get("initContainers", []) if each["name"].startswith("weights")]

    @property
    def containers(self) -> list[Object]:
        """The chart's own: the server's, and those that fetch weights."""
        return [*self.downloads, self.server]

    @property
    def models(self) -> list[Object]:
        """The settings of each model: its own, then the release's."""
        settings = {name: value for name, value in self.environment.items() if name.startswith("FLORENCE2_")}
        own = [model.get("settings", {}) for model in self.values.get("models", [])] or [{}]
        return [settings | {f"FLORENCE2_{name.upper()}": str(value) for name, value in each.items()} for each in own]

    @property
    def environment(self) -> dict[str, str]:
        """The server's variables that have a value."""
        return {each["name"]: each["value"] for each in self.server["env"] if "value" in each}

    @property
    def ports(self) -> dict[str, int]:
        """The server's ports by name."""
        return {each["name"]: each["containerPort"] for each in self.server["ports"]}


def _is_web(each: Object) -> bool:
    return each["metadata"]["labels"].get("app.kubernetes.io/component") == "web"


def manifests(rendered: Mapping[str, str]) -> str:
    """Return all YAML of a rendering as one text."""
    return "\n---\n".join(text for name, text in sorted(rendered.items()) if name.endswith(".yaml"))


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a selector's matchLabels select an object with `labels`."""
    return bool(selector) and selector.items() <= labels.items()


def selectors(release: Release) -> Iterator[Mapping[str, str]]:
    """Yield every selector of a release that selects its pods."""
    yield release.deployment["spec"]["selector"]["matchLabels"]
    for service in release.kind("Service"):
        yield service["spec"]["selector"]
    for budget in release.kind("PodDisruptionBudget"):
        yield budget["spec"]["selector"]["matchLabels"]
    for policy in release.policies:
        yield policy["spec"]["podSelector"]["matchLabels"]


def distinct(objects: Iterator[Object]) -> list[Object]:
    """Return the objects without duplicates: most cases change only one of them."""
    texts = sorted({json.dumps(each, sort_keys=True) for each in objects})
    return [json.loads(text) for text in texts]


def all_objects(releases: Mapping[str, Release]) -> list[Object]:
    """Return the distinct objects of all releases."""
    return distinct(itertools.chain.from_iterable(release.objects for release in releases.values()))
