import functools
import json

import pytest

from tests.deploy.kubernetes.rendering import CASES, CHART, NAME, NAMESPACE, PINNED, Object, Release, manifests, merged


@pytest.fixture(scope="session")
def render():
    """Renders the chart with some values, each set of them once."""
    import helm_python

    chart = helm_python.Chart.load(CHART)

    @functools.cache
    def rendered(values: str, name: str) -> Release:
        return Release(json.loads(values), manifests(chart.render(json.loads(values), name=name, namespace=NAMESPACE)))

    def render(values: Object, name: str = NAME) -> Release:
        return rendered(json.dumps(merged(PINNED, values), sort_keys=True), name)

    yield render
    chart.close()


@pytest.fixture(scope="session")
def releases(render) -> dict[str, Release]:
    """Every case, rendered."""
    return {case: render(values) for case, values in CASES.items()}


@pytest.fixture(params=CASES)
def release(request, releases) -> Release:
    """One case after the other."""
    return releases[request.param]
