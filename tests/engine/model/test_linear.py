import pytest
import torch
from florence2_server.engine.model.linear import Linear

SMALL, LARGE = (40, 24), (1024, 512)  # inputs and outputs; only large weights are multiplied by oneDNN


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 17, 48])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "outputs"), [SMALL, LARGE])
@torch.inference_mode()
def test_layers_side_by_side_compute_what_each_computes(rows, bias, inputs, outputs):
    torch.manual_seed(rows)
    layers = [torch.nn.Linear(inputs, outputs, bias=bias), torch.nn.Linear(inputs, 7, bias=bias)]
    states = torch.randn(rows, inputs)
    expected = torch.cat([layer(states) for layer in layers], dim=1)
    found = Linear.of(*layers, few_rows=True)(states)
    assert found.is_contiguous()
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("few_rows", [True, False])
@pytest.mark.parametrize("shape", [(1,), (5,), (2, 3)])
@pytest.mark.parametrize("activation", [torch.nn.GELU(), torch.nn.GELU("tanh"), torch.nn.ReLU()], ids=str)
@pytest.mark.parametrize(("inputs", "outputs"), [SMALL, LARGE])
@torch.inference_mode()
def test_the_activation_follows_the_product(few_rows, shape, activation, inputs, outputs):
    torch.manual_seed(0)
    layer, states = torch.nn.Linear(inputs, outputs), torch.randn(*shape, inputs)
    found = Linear.of(layer, activation=activation, few_rows=few_rows)(states)
    assert torch.allclose(found, activation(layer(states)), atol=1e-5)


@torch.inference_mode()
def test_half_precision_weights_are_multiplied_unpacked():
    layer = torch.nn.Linear(*LARGE).to(torch.bfloat16)
    states = torch.randn(4, LARGE[0], dtype=torch.bfloat16)
    assert torch.allclose(Linear.of(layer, few_rows=True)(states), layer(states), atol=0.05)


def test_the_weight_of_a_single_layer_is_not_copied():
    layer = torch.nn.Linear(*LARGE)
    assert Linear.of(layer).weight.data_ptr() == layer.weight.data_ptr()
