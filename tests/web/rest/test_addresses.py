"""What callers learn about the servers behind the web server."""

import pytest
from florence2.testing import MockTransport

from tests.web.conftest import respond
from tests.web.rest.calls import form

ADDRESS = "triton.internal:8001"


class Named(MockTransport):
    async def infer_async(self, image, request, context):
        return (await super().infer_async(image, request, context))._replace(url=ADDRESS)

    async def stream_async(self, image, request, context):
        async for reply in super().stream_async(image, request, context):
            yield reply._replace(url=ADDRESS)


@pytest.mark.parametrize("fields", [{}, {"stream": "true"}])
def test_no_answer_has_the_address_of_the_server_behind(app_client, fields):
    response = form(app_client(transport=Named(respond)), "detect", fields)
    assert response.status_code == 200
    assert "dog" in response.text
    assert ADDRESS not in response.text
