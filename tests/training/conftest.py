import pytest

from training.demo.export import write_processor
from training.demo.tokenizer import train_tokenizer


@pytest.fixture(scope="session")
def processor(tmp_path_factory):
    """A processor with a tokenizer trained on a few scenes."""
    return write_processor(train_tokenizer(["Locate the objects"], scenes=300), tmp_path_factory.mktemp("processor"))
