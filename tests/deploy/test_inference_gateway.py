"""What the documentation tells an inference gateway to scrape is what servers export."""

import re

import promql_parser
import pytest
import yaml

from tests.conftest import ROOT
from tests.deploy.exported_metrics import DROPPED, OURS

pytestmark = pytest.mark.deploy

PAGE = (ROOT / "docs" / "deployment.md").read_text()
(CONFIGURATION,) = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(plugins:.*?)```", PAGE, re.DOTALL)]
PARAMETERS = CONFIGURATION["plugins"][0]["parameters"]
EXPORTED = OURS | DROPPED


def specs() -> dict[str, promql_parser.VectorSelector]:
    """The metrics of the only engine type, by the picker's parameter."""
    (engine,) = PARAMETERS["engineConfigs"]
    assert engine.pop("name") == PARAMETERS["defaultEngine"]
    return {name: promql_parser.parse(text) for name, text in engine.items()}


SPECS = specs()


@pytest.mark.parametrize("name", SPECS)
def test_each_metric_is_exported_with_the_labels_that_choose_its_series(name):
    spec = SPECS[name]
    assert {matcher.name for matcher in spec.matchers.matchers} <= EXPORTED[spec.name]
    assert all(matcher.op == promql_parser.MatchOp.Equal for matcher in spec.matchers.matchers), "all the picker knows"


def test_the_table_has_the_same_names():
    rows = re.findall(r"^\| `(\w+Spec)` \| `--[\w-]+` \| `vllm:\w+` \| (?:`(\w+)`|none.*) \|$", PAGE, re.MULTILINE)
    assert {name: metric for name, metric in rows if metric} == {name: spec.name for name, spec in SPECS.items()}


def test_the_adapters_are_the_labels_of_the_documented_metric():
    (labels,) = re.findall(r"reads the labels (.*?);", PAGE, re.DOTALL)
    assert DROPPED[SPECS["loraSpec"].name] == {"model", "engine", *re.findall(r"`(\w+)`", labels)}
