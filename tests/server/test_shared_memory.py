"""What tritonserver shares with the stub is free again as soon as a request is answered."""

import io

import numpy as np
import PIL.Image
import pytest
import tritonclient.grpc as triton
from florence2.v1 import TaskRequest
from tritonclient.utils import InferenceServerException

from tests.server.conftest import ask
from tests.server.looks import shared_bytes

PHOTOGRAPHS = 40


@pytest.fixture(scope="module")
def photograph() -> bytes:
    """Noise, which no encoder makes small."""
    pixels = np.random.default_rng(5).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.mark.parametrize("is_damaged", [False, True], ids=["whole", "damaged"])
def test_photographs_leave_nothing_behind(start_server, photograph, is_damaged):
    server = start_server()
    image = photograph[: len(photograph) // 2] if is_damaged else photograph
    request = TaskRequest(caption={}, generation={"max_new_tokens": 2, "num_beams": 1})
    with triton.InferenceServerClient(server.grpc_url) as client:
        for _ in range(PHOTOGRAPHS):
            if is_damaged:
                with pytest.raises(InferenceServerException, match="undamaged"):
                    ask(client, image, request)
            else:
                ask(client, image, request)
    server_bytes = shared_bytes(server.process_id)
    server.stop()
    # One caller, so one photograph at a time; what it grows by is rounded up.
    assert server_bytes < 10 * len(photograph)
