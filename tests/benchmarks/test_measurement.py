import pytest

from benchmarks.comparison.measurement import measure, steady_throughput
from benchmarks.harness.callers import Response
from benchmarks.harness.load import Exchange
from benchmarks.harness.requests import mixed_groups
from benchmarks.harness.spread import Spread, percentile, ratios


def test_a_server_that_works_in_batches_is_counted_in_whole_batches():
    answered = [10.0 * (1 + index // 16) for index in range(16 * 5)]  # five batches, ten seconds each
    assert steady_throughput(answered, served=16) == pytest.approx(1.6)


def test_one_late_answer_does_not_decide_the_throughput():
    answered = [0.5 * (index + 1) for index in range(40)]
    late = [*answered[:-1], 500.0]
    assert steady_throughput(answered, served=4) == steady_throughput(late, served=4) == pytest.approx(2.0)


def test_one_caller_is_measured_between_its_first_and_last_but_one_answer():
    assert steady_throughput([2.0, 4.0, 6.0, 9.0], served=1) == pytest.approx(2 / 4)


def test_too_few_answers_leave_no_window():
    with pytest.raises(ValueError, match="no steady window"):
        steady_throughput([1.0] * 8, served=4)


def test_percentiles_are_interpolated_between_ranks():
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == pytest.approx(2.5)
    assert percentile([1.0], 95) == 1.0


def test_ratios_are_taken_round_by_round():
    # The machine is twice as fast in each next round; the ratio within a round is always 4.
    assert ratios([4.0, 8.0, 16.0], [1.0, 2.0, 4.0]) == Spread(4.0, 4.0, 4.0)
    assert ratios([2.0, 9.0, 4.0], [1.0, 3.0, 1.0]) == Spread(3.0, 2.0, 4.0)


@pytest.fixture(scope="module")
def exchanges():
    """Fourteen answers a second apart, each two seconds after its request."""
    requests = [group.requests(0)[0] for group in mixed_groups(14, 1)]
    response = Response("text", decode_seconds=0.1, embedding_was_cached=False)
    return [Exchange(request, response, start=i - 1.0, end=i + 1.0) for i, request in enumerate(requests)]


def test_a_closed_loop_has_all_figures(exchanges):
    measured = measure(exchanges, callers=2, peak_memory=5)
    assert measured.throughput == pytest.approx(1.0)
    assert measured.whole_throughput == pytest.approx(1.0)
    assert measured.latency_p50 == measured.short_latency_p95 == pytest.approx(2.0)
    tokens = sum(exchange.request.answer_tokens for exchange in exchanges)
    assert measured.tokens_per_second == pytest.approx(tokens / 14)
    assert (measured.answers, measured.peak_memory, measured.embeddings_cached) == (14, 5, 0)


def test_an_open_loop_has_no_throughput_of_its_own(exchanges):
    assert measure(exchanges, callers=None, peak_memory=0).throughput is None
