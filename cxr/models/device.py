"""The device of PyTorch, and the settings that make its results reproducible."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import torch

from cxr.core.errors import InputError


def init_device(threads: int, deterministic: bool) -> torch.device:
    """Configure PyTorch for this process; return the GPU if there is one, and the CPU otherwise.

    Args:
        threads: the number of CPU threads; results on a CPU depend on it.
        deterministic: use only operations that give the same bits in every run on the same hardware and software.
            PyTorch raises RuntimeError when an operation has no such implementation.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if deterministic:
        # The order in which several GPUs add gradients; NCCL's other algorithms may choose it anew in each run.
        os.environ.setdefault("NCCL_ALGO", "Ring")
    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        # LOCAL_RANK is set in distributed training: one process for each GPU of the machine.
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    else:
        _keep_freed_memory()
    torch.use_deterministic_algorithms(deterministic)
    # Every tensor is written before it is read, so filling new memory would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    # float32 means float32 on every device: by default, cuDNN's convolutions round to TF32 (10 bits of 23).
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _keep_freed_memory() -> None:
    """Make the C library reuse freed memory instead of returning it to the operating system.

    Otherwise the system provides and clears new pages for large tensors in every step: 20 to 40 % of a step on a CPU.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc; the option numbers are from its malloc.h
        trim_threshold, mmap_max = -1, -4
        library.mallopt(mmap_max, 0)
        library.mallopt(trim_threshold, 2**31 - 1)


@contextmanager
def translate_torch_errors() -> Iterator[None]:
    """Convert errors of PyTorch that other parameters avoid to InputError.

    These are: insufficient memory, an operation without a deterministic implementation, and a failure of torch.compile.
    """
    try:
        yield
    except Exception as error:
        message, first_line = str(error), str(error).partition("\n")[0]
        if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in message:
            raise InputError(f"out of memory: lower batch_size or image_size ({first_line})") from None
        if type(error).__name__ == "FailOnRecompileLimitHit":
            raise InputError(
                "torch.compile reached its limit of compilations, and would go on without them: set compile to false"
            ) from None
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise InputError(f"torch.compile cannot compile this model: set compile to false ({first_line})") from None
        if isinstance(error, RuntimeError) and "deterministic" in message:
            hint = "set deterministic to false, or choose another model"
            raise InputError(f"this model uses a nondeterministic operation: {hint} ({first_line})") from None
        raise


def describe_device(device: torch.device) -> str:
    """Return the type of a device and the name of its GPU, or the instruction set that PyTorch uses on the CPU."""
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return f"{device.type} ({processor})"


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that determine the bytes of a trained network."""
    libraries = {name: version(name) for name in ("numpy", "pandas", "safetensors", "scikit-learn", "timm", "torch")}
    return libraries | (_gpu_versions() if torch.cuda.is_available() else {})


def _gpu_versions() -> dict[str, str]:
    nccl = ".".join(map(str, torch.cuda.nccl.version()))
    cuda, cudnn = str(torch.version.cuda), str(torch.backends.cudnn.version())
    return {"cuda": cuda, "cudnn": cudnn, "nccl": nccl, "driver": _driver_version()}


def _driver_version() -> str:
    """Return the version of NVIDIA's driver, such as 580.65.06, from its management library."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return "unknown"
    text = ctypes.create_string_buffer(80)  # NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE
    nvml.nvmlInit_v2()
    nvml.nvmlSystemGetDriverVersion(text, len(text))
    nvml.nvmlShutdown()
    return text.value.decode()
