from benchmarks.callers import Reply
from benchmarks.comparison import mismatches
from benchmarks.load import Outcome
from benchmarks.questions import mixed_subjects


def test_answers_that_differ_are_listed_with_where_they_part():
    right, wrong = [subject.questions(0)[0] for subject in mixed_subjects(2, 1)]
    outcomes = [Outcome(right, Reply("a b"), 0.0, 1.0), Outcome(wrong, Reply("a cat"), 0.0, 1.0)]
    found = mismatches("mixed, ours", outcomes, {right.name: "a b", wrong.name: "a car"})
    assert [each.question for each in found] == [wrong.name]
    assert str(found[0]) == f"mixed, ours, {wrong.name}: the same for 4 characters, then expected 'r', found 't'"


def test_an_answer_cut_short_is_a_mismatch():
    question = mixed_subjects(1, 1)[0].questions(0)[0]
    outcomes = [Outcome(question, Reply("a"), 0.0, 1.0)]
    assert "then expected ' b', found ''" in str(mismatches("here", outcomes, {question.name: "a b"})[0])
