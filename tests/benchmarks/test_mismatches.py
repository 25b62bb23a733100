from benchmarks.harness.callers import Response
from benchmarks.harness.load import Exchange
from benchmarks.harness.mismatches import mismatches
from benchmarks.harness.requests import mixed_groups


def test_different_answers_are_listed_with_their_first_difference():
    right, wrong = [group.requests(0)[0] for group in mixed_groups(2, 1)]
    exchanges = [Exchange(right, Response("a b"), 0.0, 1.0), Exchange(wrong, Response("a cat"), 0.0, 1.0)]
    found = mismatches("mixed, ours", exchanges, {right.name: "a b", wrong.name: "a car"})
    assert [each.request for each in found] == [wrong.name]
    assert str(found[0]) == f"mixed, ours, {wrong.name}: the same for 4 characters, then expected 'r', found 't'"


def test_an_answer_cut_short_is_a_mismatch():
    request = mixed_groups(1, 1)[0].requests(0)[0]
    exchanges = [Exchange(request, Response("a"), 0.0, 1.0)]
    assert "then expected ' b', found ''" in str(mismatches("here", exchanges, {request.name: "a b"})[0])
