"""Loaded by Triton; the implementation is `florence2_server.stub.triton_model`."""

from florence2_server.stub.triton_model import TritonPythonModel as TritonPythonModel
