"""The memory that tritonserver shares with the stub is freed as soon as a request is answered."""

import io

import numpy as np
import PIL.Image
import pytest
import tritonclient.grpc as triton
from florence2.v1 import TaskRequest
from tritonclient.utils import InferenceServerException

from tests.server.conftest import infer
from tests.server.observation import shared_bytes

PHOTOGRAPHS = 40


@pytest.fixture(scope="module")
def photograph() -> bytes:
    """Noise, which does not compress."""
    pixels = np.random.default_rng(5).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.mark.parametrize("is_damaged", [False, True], ids=["whole", "damaged"])
def test_photographs_leave_no_shared_memory_behind(start_server, photograph, is_damaged):
    server = start_server()
    image = photograph[: len(photograph) // 2] if is_damaged else photograph
    request = TaskRequest(caption={}, generation={"max_new_tokens": 2, "num_beams": 1})
    with triton.InferenceServerClient(server.grpc_url) as client:
        for _ in range(PHOTOGRAPHS):
            if is_damaged:
                with pytest.raises(InferenceServerException, match="undamaged"):
                    infer(client, image, request)
            else:
                infer(client, image, request)
    server_bytes = shared_bytes(server.process_id)
    server.stop()
    # There is one photograph at a time, and the memory grows in large steps.
    assert server_bytes < 10 * len(photograph)
