"""FLORENCE2_ENGINE_MODULE chooses the program that runs as the engine."""

import pytest
from florence2_server.config import EngineConfig
from florence2_server.supervision.engine_process import EngineProcess, EngineStartError


@pytest.fixture
def error_of_engine(tmp_path, monkeypatch):
    """Starts a program as the engine; returns the error with which it does not become ready."""

    def start(program: str) -> str:
        monkeypatch.setenv("FLORENCE2_ENGINE_MODULE", program)
        engine = EngineProcess(EngineConfig(checkpoint="any"), tmp_path)
        try:
            with pytest.raises(EngineStartError) as error:
                engine.wait_until_ready(timeout=60)
        finally:
            engine.stop()
        return str(error.value)

    return start


def test_a_python_file_can_run_as_the_engine(error_of_engine, tmp_path):
    program = tmp_path / "wrapped.py"
    program.write_text("import sys; print('error: wrapped, with', *sys.argv[1::2])")
    assert error_of_engine(str(program)) == "wrapped, with --socket --config --parent"


def test_a_module_can_run_as_the_engine(error_of_engine):
    assert "exit status 0 before it was ready" in error_of_engine("this")  # a module that prints a poem
