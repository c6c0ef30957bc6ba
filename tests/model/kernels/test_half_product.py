"""What backward passes multiply in half precision is right, in parts too."""

import pytest
import torch

from fedgrpo.model.kernels import half_product
from fedgrpo.model.kernels.half_product import backward_product


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("most", [1, 40, 10**6])
def test_the_product_is_exact_but_for_one_rounding(
    dtype: torch.dtype, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half_product, "MOST", most)
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(5, 70, generator=generator).to(dtype)
    weight = torch.randn(70, 6, generator=generator).to(dtype)
    found = backward_product(gradient, weight)
    exact = gradient.double() @ weight.double()
    assert found.dtype == dtype
    rounding = torch.finfo(dtype).eps
    assert torch.allclose(found.double(), exact, rtol=2 * rounding, atol=20 * 1e-6)


def test_a_row_that_is_not_finite_stays_alone() -> None:
    gradient, weight = torch.randn(4, 70).bfloat16(), torch.randn(70, 6).bfloat16()
    clean = backward_product(gradient, weight)
    gradient[1] = torch.nan
    found = backward_product(gradient, weight)
    assert found[1].isnan().all()
    assert torch.equal(found[[0, 2, 3]], clean[[0, 2, 3]])
