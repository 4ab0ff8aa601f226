"""Where PyTorch computes, and whether it does so repeatably."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import torch

from cxr.core.errors import InputError


def init_device(threads: int, deterministic: bool) -> torch.device:
    """Set PyTorch up for this process and return the device: the GPU if there is one, else the CPU.

    With `deterministic`, only operations that give the same bits in every run on the same hardware and software are
    used, and PyTorch raises a RuntimeError at one that has no such form. On a CPU the bits also depend on `threads`.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        # Of several processes on one machine, each has its own; a process alone has the first.
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    else:
        _keep_freed_memory()
    torch.use_deterministic_algorithms(deterministic)
    # Every tensor is written before it is read here; filling fresh memory as well would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next step, instead of giving it back to the system.

    Large tensors otherwise get fresh pages in every step, which the system has to clear: 20 to 40 % of a CPU step.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc; the numbers are those of its malloc.h
        trim_threshold, mmap_max = -1, -4
        library.mallopt(mmap_max, 0)
        library.mallopt(trim_threshold, 2**31 - 1)


@contextmanager
def translate_torch_errors() -> Iterator[None]:
    """Turn what PyTorch says of too little memory, or of what cannot repeat or compile, into an InputError."""
    try:
        yield
    except RuntimeError as error:
        message, said = str(error), str(error).partition("\n")[0]
        if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in message:
            raise InputError(f"memory is short: lower batch_size or image_size ({said})") from None
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise InputError(f"torch.compile cannot translate this network: set compile to false ({said})") from None
        if "deterministic" in message:
            hint = "set deterministic to false, or take another network"
            raise InputError(f"this network cannot be repeated bit for bit: {hint} ({said})") from None
        raise


def describe_device(device: torch.device) -> str:
    """The processor that PyTorch computes on."""
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return f"{device.type} ({processor})"


def library_versions() -> dict[str, str]:
    """Versions of the libraries that the bytes of a trained network depend on."""
    return {name: version(name) for name in ("numpy", "pandas", "safetensors", "scikit-learn", "timm", "torch")}
