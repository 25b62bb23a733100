"""What the command does with its children besides tritonserver."""

import subprocess
import sys

SCRIPT = """
import subprocess
from florence2_server.foreground import _children, _kill_orphans

sidecar = subprocess.Popen(["sleep", "60"])  # as in `sidecar & exec florence2-server`
others = _children()
orphan = subprocess.Popen(["sleep", "60"])
_kill_orphans(others)
print(orphan.wait(), sidecar.poll())
sidecar.kill()
"""


def test_children_that_are_not_the_servers_are_left_alone():
    output = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    assert output.stdout == "-9 None\n"
