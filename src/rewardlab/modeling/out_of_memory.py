"""Whether an error says that a device has no memory left for a forward, and giving back what can be given back."""

from __future__ import annotations

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device's allocator had not enough memory: CUDA's own exception, or the CPU's plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def release_memory(device: torch.device) -> None:
    """Give back what the allocator keeps for later, which a smaller forward may need in other pieces."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
