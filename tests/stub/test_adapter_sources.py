"""Which adapters are to be served: real folders, polled as often as a test asks."""

import logging
import os
import shutil
import threading

import pytest
from florence2_server.config import AdapterConfig
from florence2_server.stub.adapter_sources import AdapterSources, SourceError
from florence2_server.supervision.engine_adapters import Origin

WAIT = 10
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def make_adapter(folder, weights: bytes = b"weights"):
    folder.mkdir()
    (folder / CONFIG).write_text("{}")
    (folder / WEIGHTS).write_bytes(weights)
    return folder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "adapters").mkdir()
    return tmp_path / "adapters"


def watching(folder) -> AdapterSources:
    """Sources that look into the folder whenever they are read."""
    return AdapterSources(AdapterConfig(str(folder)), poll_seconds=0)


def names(sources: AdapterSources) -> list[str]:
    return [each.name for each in sources.wanted()]


def test_subfolders_with_a_configuration_are_adapters(folder):
    for name in ("b", "a"):
        make_adapter(folder / name)
    (folder / "notes").mkdir()
    (folder / CONFIG.replace("adapter", "other")).touch()
    first, second = watching(folder).wanted()
    assert (first.name, first.source, first.origin) == ("a", str(folder / "a"), Origin.FOLDER)
    assert second.name == "b"


def test_a_subfolder_that_appears_is_taken_once_it_stays_the_same(folder):
    sources = watching(folder)
    assert names(sources) == []
    make_adapter(folder / "a")
    assert names(sources) == []
    assert names(sources) == ["a"]


def test_a_subfolder_that_is_being_copied_is_not_taken(folder):
    sources = watching(folder)
    adapter = make_adapter(folder / "a", b"")
    for size in range(1, 5):
        assert names(sources) == []
        (adapter / WEIGHTS).write_bytes(b"w" * size)
    assert names(sources) == []
    assert names(sources) == ["a"]


@pytest.mark.parametrize("change", ["size", "time", "content", "new file", "removed file"])
def test_a_changed_subfolder_has_another_version(folder, change):
    adapter = make_adapter(folder / "a")
    sources = watching(folder)
    (before,) = sources.wanted()
    match change:
        case "size":
            times = (adapter / WEIGHTS).stat()
            (adapter / WEIGHTS).write_bytes(b"other weights")
            os.utime(adapter / WEIGHTS, ns=(times.st_atime_ns, times.st_mtime_ns))
        case "time":
            os.utime(adapter / WEIGHTS, ns=(1, 1))
        case "content":  # of the same size, and with the time that an archive had for both
            times = (adapter / WEIGHTS).stat()
            (adapter / WEIGHTS).write_bytes(b"WEIGHTS")
            os.utime(adapter / WEIGHTS, ns=(times.st_atime_ns, times.st_mtime_ns))
        case "new file":
            (adapter / "tokenizer.json").touch()
        case "removed file":
            (adapter / WEIGHTS).unlink()
    assert sources.wanted() == [before]
    (after,) = sources.wanted()
    assert after.version != before.version
    assert (after.name, after.source) == (before.name, before.source)


def test_links_that_lead_nowhere_hide_no_change(folder):
    adapter = make_adapter(folder / "a")
    (adapter / "loop").symlink_to("loop")
    (adapter / "gone").symlink_to("/nowhere")
    sources = watching(folder)
    (before,) = sources.wanted()
    (adapter / WEIGHTS).write_bytes(b"other weights")
    assert [sources.wanted() for _ in range(2)][-1] != [before]


def test_what_is_no_folder_of_an_adapter_is_not_taken(folder):
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    (folder / "null").symlink_to("/dev/null")
    (folder / "inner").mkdir()
    os.mkfifo(folder / "inner" / CONFIG)
    make_adapter(folder / os.fsdecode(b"no\xffname\n"))
    make_adapter(folder / "a")
    make_adapter(folder / "A")
    assert names(watching(folder)) == ["A", "a"]


def test_a_removed_subfolder_is_removed_once_it_stays_away(folder):
    adapter = make_adapter(folder / "a")
    sources = watching(folder)
    (before,) = sources.wanted()
    shutil.rmtree(adapter)
    assert names(sources) == ["a"]
    make_adapter(folder / "a", b"replaced")  # removed and copied anew between two polls or three
    assert names(sources) == ["a"]
    (after,) = sources.wanted()
    assert after.version != before.version
    shutil.rmtree(adapter)
    assert names(sources) == ["a"]
    assert names(sources) == []


def test_those_that_come_later_are_last(folder):
    """An engine serves the first ones if there are too many."""
    make_adapter(folder / "m")
    sources = watching(folder)
    assert names(sources) == ["m"]
    sources.load("c", "/anywhere")
    make_adapter(folder / "a")
    assert [names(sources) for _ in range(2)][-1] == ["m", "a", "c"]


def test_a_link_to_another_folder_is_followed(folder, tmp_path):
    make_adapter(tmp_path / "v1")
    make_adapter(tmp_path / "v2", b"version 2")
    (folder / "a").symlink_to(tmp_path / "v1")
    sources = watching(folder)
    (before,) = sources.wanted()
    (tmp_path / "next").symlink_to(tmp_path / "v2")
    (tmp_path / "next").rename(folder / "a")
    assert sources.wanted() == [before]
    assert sources.wanted() != [before]


def test_invalid_names_are_logged_once_and_hidden_ones_never(folder, caplog):
    make_adapter(folder / "no spaces")
    make_adapter(folder / ".hidden")
    make_adapter(folder / "a")
    with caplog.at_level(logging.WARNING):
        sources = watching(folder)
        assert [names(sources) for _ in range(3)] == [["a"]] * 3
    (record,) = caplog.records
    assert "got the name 'no spaces', expected 1 to 64" in record.getMessage()


def test_while_the_folder_cannot_be_read_it_stays_as_it_was(folder, caplog):
    make_adapter(folder / "a")
    sources = watching(folder)
    assert names(sources) == ["a"]
    away = folder.rename(folder.with_name("away"))
    with caplog.at_level(logging.WARNING):
        assert [names(sources) for _ in range(3)] == [["a"]] * 3
    assert len(caplog.records) == 1
    away.rename(folder)
    shutil.rmtree(folder / "a")
    assert [names(sources) for _ in range(2)] == [["a"], []]


def test_the_folder_is_not_polled_more_often_than_it_should_be(folder):
    sources = AdapterSources(AdapterConfig(str(folder)), poll_seconds=60)
    make_adapter(folder / "a")
    assert [names(sources) for _ in range(3)] == [[]] * 3


def test_pairs_are_read_once_and_have_the_version_of_their_folders(tmp_path):
    adapter = make_adapter(tmp_path / "x")
    sources = AdapterSources(AdapterConfig(f"b={adapter},a=owner/name@main"), poll_seconds=0)
    first, second = before = sources.wanted()
    assert (first.name, first.source, first.origin) == ("b", str(adapter), Origin.SETTING)
    assert (second.name, second.source, second.version) == ("a", "owner/name@main", "")
    (adapter / WEIGHTS).write_bytes(b"other weights")
    assert [sources.wanted() for _ in range(2)] == [before] * 2
    changed = AdapterSources(AdapterConfig(f"b={adapter}")).wanted()[0]
    assert changed.version != first.version


def test_what_a_command_loads_can_be_undone_and_unloaded(tmp_path):
    sources = AdapterSources(AdapterConfig())
    adapter = make_adapter(tmp_path / "x")
    assert sources.load("a", str(adapter)) is None
    (first,) = sources.wanted()
    assert (first.name, first.source, first.origin) == ("a", str(adapter), Origin.COMMAND)
    former = sources.load("a", "owner/other")
    assert former == first
    sources.restore("a", former)
    assert sources.wanted() == [first]
    sources.unload("a")
    assert sources.wanted() == []
    with pytest.raises(KeyError):
        sources.unload("a")
    sources.restore("a", sources.load("a", str(adapter)))
    assert sources.wanted() == []


def test_the_folder_takes_precedence_over_commands(folder):
    sources = watching(folder)
    sources.load("a", "owner/name")
    make_adapter(folder / "a")
    assert [sources.wanted()[0].origin for _ in range(2)] == [Origin.COMMAND, Origin.FOLDER]
    assert names(sources) == ["a"]


def test_commands_leave_the_setting_alone(folder):
    make_adapter(folder / "a")
    of_folder, of_pair = watching(folder), AdapterSources(AdapterConfig("a=owner/name"))
    assert names(of_folder) == names(of_pair) == ["a"]
    for command in (lambda sources: sources.load("a", "/x"), lambda sources: sources.unload("a")):
        with pytest.raises(SourceError, match=f"comes from the folder of FLORENCE2_ADAPTERS: remove {folder}/a$"):
            command(of_folder)
        with pytest.raises(SourceError, match="is set by FLORENCE2_ADAPTERS"):
            command(of_pair)


def test_a_folder_that_hangs_holds_up_only_the_thread_that_looks_into_it(folder, monkeypatch):
    make_adapter(folder / "a")
    sources = watching(folder)
    assert names(sources) == ["a"]
    hangs, answers = threading.Event(), threading.Event()

    def scan(_):
        hangs.set()
        answers.wait(WAIT)
        return iter(())

    monkeypatch.setattr(os, "scandir", scan)
    poller = threading.Thread(target=sources.wanted)
    poller.start()
    assert hangs.wait(WAIT)
    assert names(sources) == ["a"]
    sources.load("b", "owner/name")
    assert names(sources) == ["a", "b"]
    answers.set()
    poller.join(WAIT)
