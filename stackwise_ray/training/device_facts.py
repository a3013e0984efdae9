"""What a trial's GPU is and can do, read in one place: for the record of a trial, its log and the doctor.

`read_facts` asks torch; the rest is rules over what it answered.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stackwise_ray.core.environment import nvidia_driver

BF16_SINCE = (8, 0)
"""Compute capability from which a card computes in bf16; below it torch emulates the type in float32."""

FLOAT64_SHARE = {
    (7, 0): 2,
    (7, 5): 32,
    (8, 0): 2,
    (8, 6): 64,
    (8, 9): 64,
    (9, 0): 2,
    (10, 0): 2,
    (12, 0): 64,
}
"""By compute capability, how many times slower than float32 a card computes in float64, from NVIDIA's tables of
arithmetic throughput; what is not listed is not known."""

EMULATED_BF16 = (
    "computes bf16 by emulation (compute capability below 8.0), no faster than float32; write training.precision: "
    "fp16, which it computes fast"
)


@dataclass(frozen=True, kw_only=True)
class DeviceFacts:
    """A GPU as torch and the system describe it.

    Attributes:
        capability: Compute capability.
        memory_bytes: Its whole memory.
        cuda: Version of CUDA that torch was built with; None: not known.
        driver: Version of the driver; None: not known.
    """

    name: str
    capability: tuple[int, int]
    memory_bytes: int
    cuda: str | None = None
    driver: str | None = None

    @property
    def emulates_bf16(self) -> bool:
        """Whether bf16 is slower than its number of bits promises.

        >>> DeviceFacts(name="Tesla T4", capability=(7, 5), memory_bytes=16 * 2**30).emulates_bf16
        True
        """
        return self.capability < BF16_SINCE

    @property
    def slow_float64(self) -> int | None:
        """How many times slower than float32 it computes in float64, where that is much (32, 64); else None.

        >>> DeviceFacts(name="NVIDIA L4", capability=(8, 9), memory_bytes=24 * 2**30).slow_float64
        64
        """
        share = FLOAT64_SHARE.get(self.capability)
        return share if share is not None and share > 2 else None

    def record(self) -> dict[str, str | int]:
        """What a trial's environment says of it, its name apart; what is unknown is absent."""
        found: dict[str, str | int | None] = {
            "cuda": self.cuda,
            "driver": self.driver,
            "device_memory_bytes": self.memory_bytes,
            "compute_capability": ".".join(map(str, self.capability)),
        }
        return {key: value for key, value in found.items() if value is not None}

    def remarks(self, *, precision: str, resolvent: bool) -> dict[str, str]:
        """What makes a trial on this GPU slower than its FLOPs say, by the name under which the record keeps it.

        Args:
            precision: The trial's.
            resolvent: Whether its model has resolvent kernels that compute in float64.
        """
        found = {}
        if precision == "bf16" and self.emulates_bf16:
            found["bf16"] = f"{self.name} {EMULATED_BF16}"
        if resolvent and self.slow_float64 is not None:
            found["float64"] = f"{self.name} {slow_float64_text(self.slow_float64)}"
        return found


def slow_float64_text(times: int) -> str:
    """What a low rate of float64 means for resolvent kernels; the shares of a step are estimated, not measured."""
    text = f"computes in float64 at 1/{times} of its rate in float32, and the resolvent kernels compute in float64"
    if times < 64:
        return text
    return f"{text}: an estimate from data-sheet rates is 30 to 55 % more time per step than at 1/2"


def read_facts(device: torch.device | int) -> DeviceFacts:
    """The facts of a GPU."""
    properties = torch.cuda.get_device_properties(device)
    return DeviceFacts(
        name=torch.cuda.get_device_name(device),
        capability=(properties.major, properties.minor),
        memory_bytes=properties.total_memory,
        cuda=torch.version.cuda,
        driver=nvidia_driver(),
    )
