import gc
import io
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

ROOT = Path(__file__).resolve().parents[1]
REAL_PROCESSOR = ROOT.parent / "shared" / "florence2-base"
ORIGINAL_LAYOUT = ROOT.parent / "shared" / "original-layout"
DEMO_CHECKPOINT = ROOT / "model_repository" / "florence2" / "demo_checkpoint"
EXAMPLE_SCENE = ROOT / "examples" / "scene.png"
HEIC_FILES = ROOT / "tests" / "pictures"


@pytest.fixture(scope="session")
def start_real_server(tmp_path_factory):
    """The fixture `start_server` of tests/server, which other folders import; one for all of them."""
    from tests.server.conftest import server_starter

    with server_starter(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="session")
def real_server(start_real_server):
    """The fixture `server` of tests/server, which other folders import; one for all of them."""
    return start_real_server()


@pytest.fixture(scope="session")
def real_processor_folder() -> Path:
    """Tokenizer, processor and configs of Florence-2-base, without weights."""
    if not REAL_PROCESSOR.is_dir():
        pytest.skip("the processor of Florence-2-base is not next to the repository (shared/florence2-base)")
    return REAL_PROCESSOR


@pytest.fixture(scope="session")
def original_layout_folder() -> Path:
    """Test data of the original layout: a tiny random checkpoint, the original answers to it, two adapters, configs."""
    if not ORIGINAL_LAYOUT.is_dir():
        pytest.skip("the original layout's test data is not next to the repository (shared/original-layout)")
    return ORIGINAL_LAYOUT


@pytest.fixture(scope="session")
def tiny(original_layout_folder) -> Path:
    """The tiny random checkpoint in the original layout, with its adapters and the original answers."""
    return original_layout_folder / "tiny"


@pytest.fixture(scope="session")
def random_checkpoint(real_processor_folder, tmp_path_factory) -> Path:
    """A narrow Florence-2 with random weights, the real tokenizer and vocabulary, 64 pixels wide, 17 image tokens."""
    from tests.random_checkpoint import save_random_checkpoint

    folder = tmp_path_factory.mktemp("random_checkpoint")
    save_random_checkpoint(real_processor_folder, folder)
    return folder


@pytest.fixture
def image_file():
    """`image_file(width, height, seed, format_)`: an encoded image of noise."""

    def encode(width: int = 60, height: int = 40, seed: int = 0, format_: str = "PNG", **save_options) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        file = io.BytesIO()
        PIL.Image.fromarray(pixels).save(file, format_, **save_options)
        return file.getvalue()

    return encode


@pytest.fixture
def no_collector():
    """Disable the garbage collector, so that objects in reference cycles are not freed."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def plain_environment():
    """Hide the FLORENCE2_ variables of the environment from the servers under test."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("FLORENCE2_")}
    yield
    os.environ.update(kept)


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """Let SIGINT interrupt the processes that tests start, which a shell's background jobs ignore and pass on."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(scope="session")
def reference():
    """Hugging Face with the demo checkpoint."""
    from tests.reference import Reference

    return Reference(DEMO_CHECKPOINT)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """A private key and its self-signed certificate for localhost."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the openssl command, which creates the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "chain.pem"
    make = f"req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout {key} -out {chain}"
    subject = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([openssl, *make.split(), *subject], check=True, capture_output=True, timeout=60)
    return key, chain


@dataclass(frozen=True)
class Figure:
    """A measured value, and its target: at most `at_most`, or none."""

    name: str
    value: float
    at_most: float | None

    def __str__(self) -> str:
        value = f"{self.value:10.3f}" if isinstance(self.value, float) else f"{self.value:10d}"
        if self.at_most is None:
            return f"{value}  {self.name}"
        return f"{value}  {self.name}: at most {self.at_most:.3g}, {'met' if self.value <= self.at_most else 'MISSED'}"


FIGURES = pytest.StashKey[list[Figure]]()


@pytest.fixture(scope="session")
def figure(pytestconfig):
    """`figure(name, value, at_most)`: report a measured value at the end of the session.

    A missed target is reported and fails no test, because times depend on the machine and its load. Tests fail for
    answers that are wrong, missing or never sent.
    """

    def figure(name: str, value: float, at_most: float | None = None) -> None:
        pytestconfig.stash.setdefault(FIGURES, []).append(Figure(name, value, at_most))

    return figure


def pytest_terminal_summary(terminalreporter, config):
    """Print the measured values."""
    if figures := config.stash.get(FIGURES, []):
        terminalreporter.section("figures")
        for each in figures:
            terminalreporter.write_line(str(each))
