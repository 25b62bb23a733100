import os
import sys

import pytest
from florence2_server.tritonserver import StartError
from rich.console import Console

from benchmarks.comparison.commits import SIDES, Commit, compare, print_rounds, started, throughput_ratios
from benchmarks.comparison.measured_server import MeasuredServer
from benchmarks.comparison.workloads import ClosedLoad
from benchmarks.harness.callers import Response
from benchmarks.harness.progress import RunProgress
from benchmarks.harness.reference import Pool
from benchmarks.harness.requests import mixed_groups
from benchmarks.harness.spread import Spread


class NamedServer:
    """Records its name with each request, and responds with the request's name."""

    def __init__(self, name: str, received: list) -> None:
        self._name = name
        self._received = received

    def send(self, request, num_beams):
        self._received.append((self._name, num_beams, request.image))
        return Response(request.name)

    def close(self):
        """Do nothing: there is no connection."""


@pytest.fixture(scope="module")
def pool():
    requests = [group.requests(0)[0] for group in mixed_groups(6, 1)]
    return Pool(requests, {request.name: request.name for request in requests}, replaced=0)


@pytest.fixture
def received():
    return []


@pytest.fixture
def servers(pool, received):
    # The caller's process stands in for the server's, whose memory is sampled.
    return {name: MeasuredServer(NamedServer(name, received), os.getpid(), pool, 1, 1) for name in SIDES}


def run(servers, rounds):
    console = Console(quiet=True)
    with RunProgress(console, rounds * len(SIDES)) as progress:
        return compare(servers, ClosedLoad(2, 6), rounds, progress)


def rounds_of(before, after):
    return [
        {"before": {"throughput": one}, "after": {"throughput": two}} for one, two in zip(before, after, strict=True)
    ]


def test_each_round_measures_both_servers_and_swaps_their_order(servers, received):
    measured = run(servers, rounds=3)
    assert [tuple(each) for each in measured] == [SIDES] * 3
    names = [name for name, *_ in received]
    order = [name for index, name in enumerate(names) if index == 0 or names[index - 1] != name]
    assert order == ["before", "after", "before", "after"]  # the second round begins with the last one of the first
    assert names.count("before") == names.count("after") == 3 * (4 + 6)


def test_no_server_receives_the_same_image_twice(servers, received):
    run(servers, rounds=2)
    for name in SIDES:
        images = [image for server, _, image in received if server == name]
        assert len(set(images)) == len(images)


def test_different_answers_are_found(pool, received):
    wrong = Pool(pool.requests, dict.fromkeys(pool.expected, "something else"), replaced=0)
    server = MeasuredServer(NamedServer("before", received), os.getpid(), wrong, 1, 1)
    run({"before": server, "after": server}, rounds=1)
    assert len(server.mismatches) == 2 * 6


def test_ratios_are_after_by_before_in_each_round():
    assert throughput_ratios(rounds_of([1.0, 2.0, 4.0], [1.0, 1.8, 4.8]), "throughput") == Spread(1.0, 0.9, 1.2)


@pytest.mark.parametrize(("after", "verdict"), [(0.96, "met"), (0.94, "missed")])
def test_the_median_ratio_is_judged_by_the_target(after, verdict):
    figures = {"throughput": 1.0, "whole_throughput": 1.0}
    rounds = [{"before": figures, "after": dict.fromkeys(figures, after)}]
    console = Console(record=True, width=120)
    print_rounds(console, rounds)
    assert console.export_text().count(f"at least 0.95: {verdict}") == 2


def test_a_server_that_ends_before_it_is_ready_is_an_error(tmp_path):
    commit = Commit("before", tmp_path, (sys.executable, "-c", "raise SystemExit(3)"))
    with (
        pytest.raises(StartError, match="before: the server ended with exit status 3"),
        started(commit, tmp_path, tmp_path),
    ):
        pass
