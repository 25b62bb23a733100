"""Import cycles between any two modules; import-linter looks only for those between siblings."""

import grimp
import pytest

PACKAGES = ("florence2", "florence2_server", "benchmarks", "training")


def cycles(imports: dict[str, set[str]]) -> list[set[str]]:
    """The groups of modules that import each other, by Tarjan's algorithm."""
    found, path, indices, lowest = [], [], {}, {}

    def visit(module):
        indices[module] = lowest[module] = len(indices)
        path.append(module)
        for imported in imports[module]:
            if imported not in indices:
                visit(imported)
            if imported in path:
                lowest[module] = min(lowest[module], lowest[imported])
        if lowest[module] == indices[module]:
            group = set(path[path.index(module) :])
            del path[path.index(module) :]
            if len(group) > 1:
                found.append(group)

    for module in imports:
        if module not in indices:
            visit(module)
    return found


@pytest.fixture(scope="module")
def imports():
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def test_no_modules_import_each_other(imports):
    assert cycles(imports) == []


def test_a_cycle_would_be_found(imports):
    imports = {**imports, "florence2.errors": imports["florence2.errors"] | {"florence2.client"}}
    (group,) = cycles(imports)
    assert {"florence2.errors", "florence2.client", "florence2.client.sync_client"} <= group
