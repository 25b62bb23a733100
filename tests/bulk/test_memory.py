"""Memory of a run does not grow with the number of images."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

MOST_GROWTH = 1.1


def peak_megabytes(folder, count):
    folder.mkdir()
    command = [sys.executable, "-m", "tests.bulk.memory", str(folder), str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=7200, check=True)
    result = json.loads(done.stdout)
    assert (result["images"], result["failed"]) == (count, 0)
    return result["megabytes"]


@pytest.mark.bulk
def test_memory_at_a_million_lines_is_that_at_ten_thousand(tmp_path, figure):
    few, many = (peak_megabytes(tmp_path / str(count), count) for count in (10_000, 1_000_000))
    figure("bulk: megabytes at 10,000 lines of a manifest", few)
    figure("bulk: memory at a million lines, in multiples of that at 10,000", many / few, at_most=MOST_GROWTH)
    assert many <= MOST_GROWTH * few
