import torch
from torch import nn

from training.demo.workers import Workers


def test_without_torchrun_there_is_a_single_leading_worker():
    workers = Workers()
    assert workers.leads
    assert workers.total(torch.tensor([2.0])).tolist() == [2.0]


def test_a_single_worker_keeps_its_gradients():
    layer = nn.Linear(2, 1)
    layer(torch.ones(1, 2)).sum().backward()
    Workers().sum_gradients(layer.parameters())
    assert layer.weight.grad.tolist() == [[1.0, 1.0]]
