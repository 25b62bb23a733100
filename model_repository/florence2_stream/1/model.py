"""Loaded by Triton; the implementation is `florence2_server.stub.stream_model`."""

from florence2_server.stub.stream_model import TritonPythonModel as TritonPythonModel
