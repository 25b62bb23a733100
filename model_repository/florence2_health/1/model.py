"""Loaded by Triton; the implementation is `florence2_server.stub.health_model`."""

from florence2_server.stub.health_model import TritonPythonModel as TritonPythonModel
