"""The device, number format and cores of this process."""

import os

import torch
from transformers import PreTrainedModel

from sft.system.errors import UserError

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def resolve_device(device: str) -> torch.device:
    """The device of this process: `auto` is the GPU where there is one. Raises UserError for a missing GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        remedy = "run on a machine with one, or try model.device=cpu with a small model"
        raise UserError(f"model.device is cuda, but PyTorch sees no GPU here; {remedy}")
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


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


def use_all_cores() -> None:
    """Give this process its share of the cores: `accelerate launch` leaves each CPU process a single thread."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
