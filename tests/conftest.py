import gc
import io
import os
import shutil
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
def real_processor_folder() -> Path:
    """Tokenizer, processor and configs of Florence-2-base, without weights."""
    if not REAL_PROCESSOR.is_dir():
        pytest.skip("the processor of Florence-2-base is not beside the repository (shared/florence2-base)")
    return REAL_PROCESSOR


@pytest.fixture(scope="session")
def original_layout_folder() -> Path:
    """The original layout: a tiny random checkpoint with the original code's answers, two adapters, and configs."""
    if not ORIGINAL_LAYOUT.is_dir():
        pytest.skip("the original layout's test data is not next to the repository (shared/original-layout)")
    return ORIGINAL_LAYOUT


@pytest.fixture(scope="session")
def random_checkpoint(real_processor_folder, tmp_path_factory) -> Path:
    """A narrow Florence-2 with random weights, the real tokenizer and vocabulary, 64 pixels wide, 17 image tokens."""
    from tests.random_checkpoint import save_random_checkpoint

    folder = tmp_path_factory.mktemp("random_checkpoint")
    save_random_checkpoint(real_processor_folder, folder)
    return folder


@pytest.fixture
def image_file():
    """Makes an image file's bytes: noise of a given size and seed, in a given format."""

    def encode(width: int = 60, height: int = 40, seed: int = 0, format_: str = "PNG", **save_options) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        file = io.BytesIO()
        PIL.Image.fromarray(pixels).save(file, format_, **save_options)
        return file.getvalue()

    return encode


@pytest.fixture
def no_collector():
    """Frees only what nothing refers to any more: what is in a cycle stays, and can be told from what is not."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def plain_environment():
    """No FLORENCE2_ setting of the caller's reaches the servers under test."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("FLORENCE2_")}
    yield
    os.environ.update(kept)


@pytest.fixture(scope="session")
def reference():
    """Hugging Face with the demo checkpoint."""
    from tests.reference import Reference

    return Reference(DEMO_CHECKPOINT)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """A key and a certificate that it signed itself, for localhost."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the openssl command, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    key, chain = folder / "key.pem", folder / "chain.pem"
    make = f"req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout {key} -out {chain}"
    subject = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([openssl, *make.split(), *subject], check=True, capture_output=True, timeout=60)
    return key, chain


@dataclass(frozen=True)
class Figure:
    """Something measured, and what it should be at most; None: whatever it is."""

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
    """`figure(name, value, at_most)`: something measured, printed when all tests are over.

    Times depend on the machine and on what else it does, so that a target that is missed is printed and fails nothing:
    tests fail for what is wrong, lost, or never comes.
    """

    def figure(name: str, value: float, at_most: float | None = None) -> None:
        pytestconfig.stash.setdefault(FIGURES, []).append(Figure(name, value, at_most))

    return figure


def pytest_terminal_summary(terminalreporter, config):
    """Print what was measured."""
    if figures := config.stash.get(FIGURES, []):
        terminalreporter.section("figures")
        for each in figures:
            terminalreporter.write_line(str(each))
