"""`engine/model/` is tensors only: it imports nothing else of this project."""

import json
import pkgutil
import subprocess
import sys

from florence2_server.engine import model

PACKAGE = model.__name__
# Imports the modules that it is given one after another; prints which modules of the project each brought along.
IMPORT = """
import importlib, json, sys

brought = {}
for name in sys.argv[1:]:
    before = set(sys.modules)
    importlib.import_module(name)
    brought[name] = [each for each in set(sys.modules) - before if each.startswith("florence2")]
print(json.dumps(brought))
"""


def test_no_module_imports_anything_of_the_project_outside_of_the_package():
    names = [f"{PACKAGE}.{module.name}" for module in pkgutil.iter_modules(model.__path__)]
    assert f"{PACKAGE}.runner" in names
    run = subprocess.run(
        [sys.executable, "-c", IMPORT, *names], capture_output=True, text=True, check=True, timeout=120
    )
    allowed = {"florence2_server", "florence2_server.engine", PACKAGE, *names}
    brought = json.loads(run.stdout)
    assert list(brought) == names
    assert [(name, found) for name, modules in brought.items() if (found := set(modules) - allowed)] == []
