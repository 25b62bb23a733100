import pytest

from tests.deploy.kubernetes.cases import CASES
from tests.deploy.kubernetes.rendering import Release


@pytest.fixture(scope="session")
def releases(render) -> dict[str, Release]:
    """Every case, rendered."""
    return {case: render(values) for case, values in CASES.items()}


@pytest.fixture(params=CASES)
def release(request, releases) -> Release:
    """Each case in turn."""
    return releases[request.param]
