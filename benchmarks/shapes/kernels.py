"""What a GPU would run in the place of operations that a CPU build has no CUDA code for: bitsandbytes' and attention's.

bitsandbytes' own code for CUDA is run, which allocates, checks types, asks for outliers and chooses kernels; only the
functions of its compiled library do nothing.
"""

import importlib.util
import logging
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import bitsandbytes.functional
import torch
import torch.nn.attention.varlen  # its operations

from benchmarks.shapes.gpu import FakeGpu

aten = torch.ops.aten
HALF = (torch.float16, torch.bfloat16)
FLASH = (8, 0)
"""The compute capability from which on PyTorch's flash attention runs."""
_COMPOSITE_ON_A_CPU_BUILD = ("silu_backward", "mish_backward", "native_channel_shuffle")
"""Operations that autograd takes apart where there is no kernel; CUDA has one."""
_library = torch.library.Library("aten", "IMPL")


def _not_called(*_: Any) -> Any:
    raise NotImplementedError("the mode comes before a kernel")


class _NoLibrary:
    """bitsandbytes' compiled library: each of its functions succeeds, does nothing, and counts as a kernel."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu

    def __getattr__(self, name: str) -> Callable[..., int]:
        def function(*_: Any) -> int:
            self._gpu.kernels += 1
            return 0

        self.__dict__[name] = function
        return function


def install(gpu: FakeGpu, capability: tuple[int, int]) -> None:
    """Give `gpu`, of this compute capability, its kernels, for good."""
    _bitsandbytes(gpu)
    for name in _COMPOSITE_ON_A_CPU_BUILD:
        _library.impl(name, _not_called, "CUDA", allow_override=True)

    def attention(*args: Any, **kwargs: Any) -> torch.Tensor:
        return _attention(gpu, capability, *args, **kwargs)

    _library.impl("scaled_dot_product_attention", attention, "AutogradCUDA", allow_override=True)
    gpu.stand_ins["aten::scaled_dot_product_attention"] = lambda _, func, *args, **kwargs: attention(*args, **kwargs)
    gpu.stand_ins["torch_attn::_varlen_attn"] = lambda _, func, *args, **kwargs: _varlen(capability, *args)


def _bitsandbytes(gpu: FakeGpu) -> None:
    """bitsandbytes' operations, as it runs them on CUDA; what it has nothing of its own for there is its default."""

    def register(name: str, device: str) -> Callable[[Any], Any]:
        def keep(function: Any) -> Any:
            gpu.stand_ins.setdefault(name, lambda _, func, *args, **kwargs: function(*args, **kwargs))
            return function

        return keep

    library = _NoLibrary(gpu)
    with (
        patch("bitsandbytes._ops.register_kernel", register),
        patch("bitsandbytes.cextension.lib", library),
        patch("torch._C._cuda_getCurrentRawStream", lambda *_: 0, create=True),
    ):
        for part in ("cuda", "default"):
            spec = importlib.util.find_spec(f"bitsandbytes.backends.{part}.ops")
            assert spec is not None
            assert spec.loader is not None
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
    bitsandbytes.functional.lib = library
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _attention(
    gpu: FakeGpu,
    capability: tuple[int, int],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """PyTorch's choice for (batch, heads, tokens, size): flash without a mask, memory-efficient with one, else math."""
    if not query.dtype == key.dtype == value.dtype:
        raise TypeError(f"attention of {query.dtype}, {key.dtype} and {value.dtype}")
    half, modern = query.dtype in HALF, capability >= FLASH
    if mask is None and half and modern:
        gpu.chosen["flash"] += 1
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout, is_causal, False, scale=scale)[0]
    if enable_gqa or (query.dtype == torch.bfloat16 and not modern):
        gpu.chosen["math"] += 1
        return torch._scaled_dot_product_attention_math(
            query, key, value, mask, dropout, is_causal, None, scale=scale, enable_gqa=enable_gqa
        )[0]
    gpu.chosen["memory-efficient"] += 1
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.where(mask, query.new_zeros(()), query.new_full((), -torch.inf))
        missing = -mask.shape[-1] % 16  # the kernel reads aligned rows
        mask = torch.nn.functional.pad(mask, (0, missing))[..., : mask.shape[-1]] if missing else mask
        mask = mask.expand(*query.shape[:3], key.shape[2])
    learns = torch.is_grad_enabled() and any(states.requires_grad for states in (query, key, value))
    return aten._scaled_dot_product_efficient_attention(
        query, key, value, mask, learns, dropout, is_causal, scale=scale
    )[0]


def _varlen(capability: tuple[int, int], query: torch.Tensor, *_: Any) -> Any:
    if query.dtype not in HALF or capability < FLASH:
        raise TypeError(f"flash attention takes 16 bits from sm80 on, not {query.dtype} on sm{capability}")
    return NotImplemented
