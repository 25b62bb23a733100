from florence2_server.engine.checkpoint.report import Report, listed, size
from florence2_server.engine.errors import AdapterError


def test_texts_are_aligned_after_the_longest_label():
    report = Report([("name", "a"), ("generation", "b")], ["c", "d"])
    assert str(report).splitlines() == [
        "name        a",
        "generation  b",
        "warnings    c",
        "            d",
        "can be served",
    ]


def test_a_long_text_is_wrapped_in_its_column():
    names = [f"option_{number}={number}" for number in range(20)]
    lines = str(Report([("generation", ", ".join(names))])).splitlines()
    first, *others = lines[:-2]
    assert first.startswith("generation  option_0=0, option_1=1")
    assert others
    assert all(line.startswith(" " * 12 + "option_") for line in others)
    assert max(map(len, lines)) <= 100


def test_the_last_line_says_why_a_checkpoint_cannot_be_served():
    report = Report([("name", "a")], ["c"], "no\nsuch folder")
    assert str(report).splitlines() == ["name      a", "warnings  c", "cannot be served: no such folder"]


def test_no_warnings_are_reported_as_none_only_if_the_checkpoint_was_loaded():
    assert "warnings" not in str(Report([("name", "a")], error="no such folder"))
    assert "warnings  none" in str(Report([("name", "a")]))


def test_a_path_is_not_wrapped():
    path = "/" + "very-long-name/" * 12
    assert f"name      {path}" in str(Report([("name", path)])).splitlines()


def test_sizes_have_three_digits_at_most():
    counts = (0, 999, 1000, 1234, 99_949, 123_456, 3_200_000_000, 12_900_000_000)
    assert [size(count) for count in counts] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "1.2 kB",
        "99.9 kB",
        "123 kB",
        "3.2 GB",
        "12.9 GB",
    ]


def test_long_lists_are_abridged():
    assert listed([]) == "none"
    assert listed(["a", "b"], most=2) == "a, b"
    assert listed(["a", "b", "c", "d"], most=2) == "a, b and 2 more"


def test_the_reason_of_an_error_is_shown_without_the_name_that_wraps_it():
    report = Report([("adapter", "a")])
    wrapped = AdapterError("adapter 'a': no rank")
    wrapped.__cause__ = AdapterError("no rank")
    report.fail(wrapped)
    assert report.error == "no rank"
    unreadable = AdapterError("adapter 'a' cannot be read: OSError: full")
    unreadable.__cause__ = OSError("full")
    report.fail(unreadable)
    assert report.error == str(unreadable)
