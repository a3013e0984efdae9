"""What an error of a computation says about its process: out of memory, or a CUDA context that cannot be used again.

Called by the run of a trial and by the process around it. It reads texts alone (torch raises `RuntimeError` for most
of these, and drivers and libraries have no exceptions of their own), so nothing heavy is imported.
Source: `cudaGetErrorString` of the CUDA runtime; torch's c10/cuda/CUDAException.cpp, ATen/cuda/Exceptions.h and
c10/core/impl/alloc_cpu.cpp; Triton's launcher.
"""

from __future__ import annotations

from collections.abc import Iterator

_OUT_OF_MEMORY = (
    "out of memory",  # torch's allocator on a device, the CUDA runtime, the driver, Triton, nccl
    "_STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN, cuSOLVER, cuSPARSE
    "cudaErrorMemoryAllocation",
    "can't allocate memory",  # torch's allocator on a CPU
    "not enough memory: you tried to allocate",
)
_OF_THE_DEVICE = (
    "CUDA error:",
    "CUDA driver error:",
    "Triton Error [CUDA]:",
    "cuDNN error:",
    "cusolver error:",
    "Cuda failure",
)
_OF_THE_CALL = (
    "invalid argument",
    "invalid configuration argument",
    "invalid device function",
    "invalid device ordinal",
    "invalid resource handle",
    "no kernel image is available",
    "device kernel image is invalid",
    "too many resources requested for launch",
    "operation not supported when stream is capturing",
    "_STATUS_INVALID_VALUE",
    "_STATUS_NOT_SUPPORTED",
    "_STATUS_ARCH_MISMATCH",
    "CUDNN_STATUS_BAD_PARAM",
)
"""Errors of the device that say that a call was wrong; the context is as it was."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a computation failed for want of memory, on a device or a CPU.

    >>> is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    True
    """
    return isinstance(error, MemoryError) or _has(error, _OUT_OF_MEMORY)


def spoils_process(error: BaseException) -> bool:
    """Whether this process cannot use its device again after the error, or one that it came from.

    After most errors of a kernel every further call fails, in this process alone. Where the driver or a library (not
    torch's allocator) found no memory, their state is unknown and what they hold is not given back: so it counts too.

    >>> spoils_process(RuntimeError("CUDA error: an illegal memory access was encountered"))
    True
    >>> spoils_process(RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB."))
    False
    """
    return any(_has(one, _OF_THE_DEVICE) and not _has(one, _OF_THE_CALL) for one in _chain(error))


def _has(error: BaseException, words: tuple[str, ...]) -> bool:
    text = str(error)
    return any(word in text for word in words)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it came from."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__
