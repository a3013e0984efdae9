"""Errors as torch, CUDA and its libraries word them, and what they mean for the process."""

from __future__ import annotations

import pytest
import torch

from stackwise_ray.core.device_errors import is_out_of_memory, spoils_process
from stackwise_ray.core.errors import TrialError

HINT = (
    "\nSearch for `cudaErrorIllegalAddress' in https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html "
    "for more information.\nCUDA kernel errors might be asynchronously reported at some other API call, so the "
    "stacktrace below might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
    "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n"
)
LOST = [
    "CUDA error: an illegal memory access was encountered" + HINT,
    "CUDA error: device-side assert triggered" + HINT,
    "CUDA error: unspecified launch failure" + HINT,
    "CUDA error: misaligned address" + HINT,
    "CUDA error: an illegal instruction was encountered" + HINT,
    "CUDA error: uncorrectable ECC error encountered" + HINT,
    "CUDA error: uncorrectable NVLink error detected during the execution" + HINT,
    "CUDA error: the launch timed out and was terminated" + HINT,
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable" + HINT,
    "CUDA error: unknown error" + HINT,
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, opa, opb, m, n, k)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "CUDA driver error: device not ready",
    "Triton Error [CUDA]: an illegal memory access was encountered",
    "Triton Error [CUDA]: unspecified launch failure",
]
FULL = [
    "CUDA error: out of memory" + HINT,
    "CUDA driver error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    "Triton Error [CUDA]: out of memory",
    "NCCL Error 1: unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'",
]
ALLOCATOR = [
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.80 GiB of which 1.25 GiB is "
    "free. Including non-PyTorch memory, this process has 138.54 GiB memory in use.",
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4000000000000 bytes. Error code 12 (Cannot allocate memory)",
    "[enforce fail at alloc_cpu.cpp:115] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
]
CALLS = [
    "CUDA error: no kernel image is available for execution on the device" + HINT,
    "CUDA error: invalid device ordinal" + HINT,
    "CUDA error: invalid configuration argument" + HINT,
    "CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm( handle, opa, opb, m, n, k, &alpha, a, lda)`",
    "Triton Error [CUDA]: device kernel image is invalid",
    "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)",
    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
]


@pytest.mark.parametrize("text", LOST)
def test_after_an_error_of_a_kernel_or_the_device_the_process_is_of_no_more_use(text: str) -> None:
    for error in (RuntimeError(text), torch.AcceleratorError(text)):
        assert spoils_process(error)
        assert not is_out_of_memory(error)


@pytest.mark.parametrize("text", FULL)
def test_memory_that_the_driver_or_a_library_did_not_get_is_out_of_memory_and_ends_the_process(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))
    assert spoils_process(RuntimeError(text))


@pytest.mark.parametrize("text", ALLOCATOR)
def test_memory_that_torchs_allocator_did_not_get_leaves_the_process_as_it_was(text: str) -> None:
    for error in (RuntimeError(text), torch.OutOfMemoryError(text)):
        assert is_out_of_memory(error)
        assert not spoils_process(error)


def test_a_real_allocation_that_is_too_large_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(MemoryError())


@pytest.mark.parametrize("text", CALLS)
def test_a_call_that_was_wrong_is_neither(text: str) -> None:
    assert not spoils_process(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError(text))


def test_an_error_that_came_from_such_a_one_tells_the_same() -> None:
    error = TrialError("out of memory: raise training.accumulation")
    error.__cause__ = RuntimeError(FULL[0])
    assert spoils_process(error)
    assert not spoils_process(TrialError("the loss is not finite"))
