"""The chart as an operator installs it: from an example, or with values that cannot work together."""

import contextlib

import pytest

from tests.deploy.kubernetes.cases import EXAMPLES, example
from tests.deploy.kubernetes.test_helm_rejected import CONTRADICTIONS

NAMES = sorted(file.stem for file in EXAMPLES.glob("*.yaml"))


def test_every_example_renders(render, figure):
    pods = {name: render(example(name)).pod for name in NAMES}
    figure(f"O9: examples of the chart that render, of {len(NAMES)}", len(pods))
    assert "cpu" in pods
    assert all(pod["containers"] for pod in pods.values())


def test_the_example_without_a_gpu_requests_none_and_fetches_no_weights(render):
    """It is for the image as docker/README.md builds it, with weights inside."""
    release = render(example("cpu"))
    assert release.downloads == []
    assert not any("gpu" in name for name in release.server["resources"]["limits"])
    assert release.server["image"].split("@")[0].endswith("-cpu")


def test_combinations_that_cannot_work_are_refused(render, figure):
    import helm_python

    assert any("autoscaling" in values for values, _ in CONTRADICTIONS.values())
    rendered = []
    for case, (values, _) in CONTRADICTIONS.items():
        with contextlib.suppress(helm_python.HelmError):
            render(values)
            rendered.append(case)
    figure(f"O9: combinations refused, of {len(CONTRADICTIONS)}", len(CONTRADICTIONS) - len(rendered))
    assert rendered == []


def test_more_pods_at_least_than_at_most_are_refused_and_equally_many_render(render):
    import helm_python

    scaler = {"by": "hpa", "minReplicas": 5}
    with pytest.raises(helm_python.HelmError, match=r"minReplicas is 5, more than autoscaling\.maxReplicas, 2"):
        render({"autoscaling": {**scaler, "maxReplicas": 2}})
    scaled = render({"autoscaling": {**scaler, "maxReplicas": 5}}).one("HorizontalPodAutoscaler")["spec"]
    assert (scaled["minReplicas"], scaled["maxReplicas"]) == (5, 5)
