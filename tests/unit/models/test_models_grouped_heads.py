"""Whether transformers hands grouped heads to torch's attention, by device and precision. No GPU is needed: the keys
are fake, and only their device, type and shape are asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch._subclasses import FakeTensorMode
from transformers.integrations import sdpa_attention

from stackwise_ray.config.trial import ModelConfig
from stackwise_ray.models import build_model

LLAMA = ModelConfig(family="llama", role="decoder", n_layers=1, d_model=32, n_heads=4, n_kv_heads=2, d_ff=48)


@pytest.fixture(autouse=True)
def _a_model_was_built() -> None:
    build_model(LLAMA, vocab_size=50, seq_len=8, device="meta")


@pytest.fixture
def cuda_autocast() -> Iterator[None]:
    # `torch.autocast("cuda")` switches itself off where there is no GPU.
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    yield
    torch.set_autocast_enabled("cuda", before[0])
    torch.set_autocast_dtype("cuda", before[1])


def stay_grouped(device: str, dtype: torch.dtype) -> bool:
    with FakeTensorMode():
        key = torch.empty(2, 2, 8, 16, dtype=dtype, device=device)
        return sdpa_attention.use_gqa_in_sdpa(None, key, key)


def test_float32_on_a_gpu_repeats_keys_and_values_since_no_fused_kernel_takes_them_grouped() -> None:
    assert not stay_grouped("cuda", torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_on_a_gpu_stay_grouped(dtype: torch.dtype) -> None:
    assert stay_grouped("cuda", dtype)


@pytest.mark.usefixtures("cuda_autocast")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float32_keys_that_autocast_narrows_stay_grouped(dtype: torch.dtype) -> None:
    torch.set_autocast_dtype("cuda", dtype)
    assert stay_grouped("cuda", torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keys_on_a_cpu_stay_grouped(dtype: torch.dtype) -> None:
    assert stay_grouped("cpu", dtype)
