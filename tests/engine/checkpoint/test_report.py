from florence2_engine.checkpoint.report import Report, listed, size


def test_texts_are_aligned_after_the_longest_label():
    report = Report([("name", "a"), ("generation", "b")], ["c", "d"])
    assert str(report).splitlines() == [
        "name        a",
        "generation  b",
        "surprises   c",
        "            d",
        "can be served",
    ]


def test_a_long_text_goes_on_in_its_column():
    names = [f"option_{number}={number}" for number in range(20)]
    lines = str(Report([("generation", ", ".join(names))])).splitlines()
    first, *others = lines[:-2]
    assert first.startswith("generation  option_0=0, option_1=1")
    assert others
    assert all(line.startswith(" " * 12 + "option_") for line in others)
    assert max(map(len, lines)) <= 100


def test_the_last_line_says_why_it_is_refused():
    report = Report([("name", "a")], ["c"], "no\nsuch folder")
    assert str(report).splitlines() == ["name       a", "surprises  c", "refused: no such folder"]


def test_a_checkpoint_that_was_not_loaded_is_not_reported_to_have_no_surprises():
    assert "surprises" not in str(Report([("name", "a")], refusal="no such folder"))
    assert "surprises  none" in str(Report([("name", "a")]))


def test_a_path_is_not_broken():
    path = "/" + "very-long-name/" * 12
    assert f"name       {path}" in str(Report([("name", path)])).splitlines()


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


def test_long_lists_are_cut():
    assert listed([]) == "none"
    assert listed(["a", "b"], most=2) == "a, b"
    assert listed(["a", "b", "c", "d"], most=2) == "a, b and 2 more"
