import pytest
import torch
from florence2_engine.packed_linear import PackedLinear


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 17, 48])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_layers_side_by_side_give_what_each_gives(rows, bias):
    torch.manual_seed(rows)
    layers = [torch.nn.Linear(40, 24, bias=bias), torch.nn.Linear(40, 7, bias=bias)]
    states = torch.randn(rows, 40)
    expected = torch.cat([layer(states) for layer in layers], dim=1)
    found = PackedLinear.of(*layers)(states)
    assert found.is_contiguous()
    assert torch.allclose(found, expected, atol=1e-6)


@torch.inference_mode()
def test_half_precision_has_no_packed_copy():
    layer = torch.nn.Linear(16, 8).to(torch.bfloat16)
    states = torch.randn(4, 16, dtype=torch.bfloat16)
    assert torch.allclose(PackedLinear.of(layer)(states), layer(states), atol=0.05)
