"""Each image exactly once, even if the command, the engine and tritonserver are killed."""

import pytest

from tests.bulk import kills
from tests.bulk.conftest import lines


def run_both(server, tmp_path, images, victims, most):
    """Run the command undisturbed and disturbed. Returns how often each victim was killed."""
    source = kills.draw_scenes(tmp_path / "scenes", images)
    assert kills.start_command(source, tmp_path / "undisturbed.jsonl", server.url).wait(kills.RUN_SECONDS) == 0
    killed = kills.run_with_kills(source, tmp_path / "disturbed.jsonl", server, victims, most, seed=images)
    assert len(lines(tmp_path / "undisturbed.jsonl")) == images
    kills.assert_equal_outputs(tmp_path / "disturbed.jsonl", tmp_path / "undisturbed.jsonl")
    assert not list(tmp_path.glob("*.failed.jsonl"))
    return killed


def test_five_kills_over_500_images(bulk_server, tmp_path):
    victims = ["command", "engine", "command", "server", "command"]
    assert run_both(bulk_server, tmp_path, 500, victims, most=60).total() == len(victims)


@pytest.mark.bulk
def test_fifty_kills_over_5000_images(bulk_server, tmp_path, figure):
    victims = ["server", "command", "server", "command", "engine"] * 10
    killed = run_both(bulk_server, tmp_path, 5000, victims, most=90)
    for victim, count in killed.items():
        figure(f"kill -9 over 5,000 images, output equal: kills of the {victim}", count)
    assert killed == {"server": 20, "command": 20, "engine": 10}
