"""Generates the table of values in the chart's README from values.yaml and its comments.

`python -m tests.deploy.kubernetes.values_table` writes it; a test fails if it is out of date.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parents[3] / "docker" / "helm" / "florence2-triton"
BEGIN, END = "<!-- values: made by python -m tests.deploy.kubernetes.values_table -->\n", "<!-- end of values -->\n"


def table(text: str) -> str:
    """Return the Markdown table of all values in `text`: key, default, comment."""
    rows = [f"| `{key}` | {default} | {comment} |\n" for key, default, comment in _rows(text)]
    return "".join(["\n| Value | Default | What |\n|---|---|---|\n", *rows, "\n"])


def rewrite(readme: str, values: str) -> str:
    """Return `readme` with the table of `values` between its markers."""
    before, rest = readme.split(BEGIN)
    return before + BEGIN + table(values) + END + rest.split(END)[1]


def _rows(text: str) -> Iterator[tuple[str, str, str]]:
    comments = _comments(text)
    for path, node in _nodes(yaml.compose(text)):
        value = yaml.safe_load(yaml.serialize(node))
        is_group = isinstance(value, dict) and value and path not in comments
        has_rows_of_its_own = isinstance(value, dict) and any(other.startswith(f"{path}.") for other in comments)
        if has_rows_of_its_own and path in comments:
            yield path, "", comments[path]
        elif not is_group and _parent(path, comments) is None:
            yield path, f"`{json.dumps(value)}`", comments.get(path, "")


def _parent(path: str, comments: dict[str, str]) -> str | None:
    """Return the ancestor whose comment covers everything below it, such as `resources`."""
    parts = path.split(".")
    for length in range(len(parts) - 1, 0, -1):
        above = ".".join(parts[:length])
        if above in comments and not any(other.startswith(f"{above}.") for other in comments):
            return above
    return None


def _nodes(node: yaml.Node, path: str = "") -> Iterator[tuple[str, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        below = f"{path}.{key.value}" if path else key.value
        yield below, value
        yield from _nodes(value, below)


def _comments(text: str) -> dict[str, str]:
    """Return the comment directly above each key; comments followed by a blank line belong to no key."""
    found: dict[str, str] = {}
    above: list[str] = []
    open_keys: list[tuple[int, str]] = []
    for line in text.splitlines():
        key = re.match(r"( *)([A-Za-z][\w.-]*):", line)
        comment = re.match(r" *# (.*)", line)
        if comment:
            above.append(comment[1])
            continue
        if key:
            open_keys = [*(each for each in open_keys if each[0] < len(key[1])), (len(key[1]), key[2])]
            if above:
                found[".".join(name for _, name in open_keys)] = " ".join(above)
        above = []
    return found


if __name__ == "__main__":
    file = CHART / "README.md"
    file.write_text(rewrite(file.read_text(), (CHART / "values.yaml").read_text()))
