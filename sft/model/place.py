"""The device, number format and cores of this process."""

import ctypes
import functools
import os
import re
import resource
import sys
from pathlib import Path

import torch
from transformers import PreTrainedModel

from sft.system.errors import UserError, warn

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

DRIVERS = {"13": 580, "12": 525}
"""CUDA's release → the oldest NVIDIA driver that runs it."""
DRIVER = Path("/proc/driver/nvidia/version")
"""Where Linux's driver says what it is."""
NVML = "libnvidia-ml.so.1"
"""The library that knows it in WSL2, too, which has the driver of Windows."""


def resolve_device(device: str) -> torch.device:
    """The device of this process: `auto` is the GPU where there is one.

    Raises UserError for a missing GPU, and for one that this PyTorch has no kernels for. Warns where `auto` leaves a
    GPU unused that has a driver.
    """
    if device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        if device == "cuda":
            remedy = "or try model.device=cpu with a small model"
            raise UserError(f"model.device is cuda, but PyTorch sees no GPU here: {_why_no_gpu()}, {remedy}")
        if os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1") and driver_version():
            _warn_once(f"model.device: auto is the CPU here, although there is an NVIDIA driver: {_why_no_gpu()}")
        return torch.device("cpu")
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    _check_kernels(place)
    return place


@functools.cache
def driver_version() -> str | None:
    """The version of NVIDIA's driver, such as "580.95.05"; None where none is found."""
    try:
        text = DRIVER.read_text(encoding="utf-8")
    except OSError:
        text = _as_nvml_says()
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return found[0] if found else None


def _as_nvml_says() -> str:
    """The version from the library that nvidia-smi asks; empty where there is none, or it finds no driver."""
    try:
        nvml = ctypes.CDLL(NVML)
    except OSError:
        return ""
    text = ctypes.create_string_buffer(80)
    nvml.nvmlInit_v2()
    nvml.nvmlSystemGetDriverVersion(text, len(text))
    nvml.nvmlShutdown()
    return text.value.decode("ascii", errors="replace")


def _why_no_gpu() -> str:
    """What is known of why PyTorch sees none, and the remedy."""
    cuda, driver = torch.version.cuda, driver_version()
    if sys.platform == "win32":
        return "the package index has no PyTorch for GPUs on Windows; run in WSL2 (docs/installing.md)"
    if cuda is None:
        return f"this PyTorch ({torch.__version__}) is built without CUDA; install one that has it (docs/installing.md)"
    needed = DRIVERS.get(cuda.partition(".")[0])
    if driver is None:
        return f"no NVIDIA driver was found, and CUDA {cuda} needs {needed} or newer; run on a machine with one"
    if needed and int(driver.partition(".")[0]) < needed:
        remedy = "update it, or install PyTorch for an older CUDA (docs/installing.md)"
        return f"NVIDIA's driver is {driver}, and CUDA {cuda} needs {needed} or newer; {remedy}"
    remedy = "see whether nvidia-smi shows a GPU and CUDA_VISIBLE_DEVICES hides none"
    return f"NVIDIA's driver is {driver}, new enough for CUDA {cuda}; {remedy}"


def _check_kernels(place: torch.device) -> None:
    """Raise UserError for a GPU older than all that this PyTorch was built for; it would fail at its first product."""
    built = [int(found[1]) for name in torch.cuda.get_arch_list() if (found := re.fullmatch(r"sm_(\d+)a?", name))]
    major, minor = torch.cuda.get_device_capability(place)
    if built and 10 * major + minor < min(built):
        raise UserError(
            f"model.device: {torch.cuda.get_device_name(place)} (sm_{major}{minor}) is older than all GPUs that this "
            f"PyTorch, for CUDA {torch.version.cuda}, can use; install PyTorch for an older CUDA (docs/installing.md)"
        )


@functools.cache
def _warn_once(text: str) -> None:
    if int(os.environ.get("RANK", 0)) == 0:
        warn([text])


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The dtype of unquantised weights and of arithmetic: `auto` is bf16, or fp16 on a GPU without bf16."""
    if dtype == "float16" and device.type == "cpu":
        raise UserError("model.dtype: float16 needs a GPU; use bfloat16 or float32 on a CPU")
    if dtype != "auto":
        return DTYPES[dtype]
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def wider_format(model: PreTrainedModel, dtype: torch.dtype) -> str | None:
    """What to set where numbers left the range of `dtype`, in which `model` computes; None: nothing is wider."""
    quantization = getattr(model.config, "quantization_config", None)
    if getattr(quantization, "load_in_8bit", False):
        # bfloat16 does not help: sums above 65,504 become inf on the way, and inputs with llm_int8_threshold 0.
        words = "quantization.load_in_8bit=false quantization.load_in_4bit=true"
        return f"{words} (8-bit products pass through fp16, whatever model.dtype is)"
    compute = getattr(quantization, "bnb_4bit_compute_dtype", None) == torch.float16
    if dtype == torch.float16 or compute:
        words = "model.dtype=bfloat16" + " quantization.bnb_4bit_compute_dtype=bfloat16" * compute
        return f"{words} (float32 where the card has no bfloat16)"
    return None if dtype == torch.float32 else "model.dtype=float32"


def memory_peak_bytes(device: torch.device) -> int:
    """The most memory used so far: reserved on a GPU, or this process's resident set on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def use_all_cores() -> None:
    """Give this process its share of the cores: `accelerate launch` leaves each CPU process a single thread."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
