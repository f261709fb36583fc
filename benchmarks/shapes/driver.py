"""What PyTorch and bitsandbytes ask of a GPU beside computing on it, answered for one that is not there."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import bitsandbytes.nn  # before torch.cuda is pretended: it must load its library for CPUs
import torch
import torch._subclasses.fake_tensor as fake_tensor
from torch._subclasses.fake_tensor import FakeTensor

from benchmarks.shapes import guard, kernels
from benchmarks.shapes.gpu import FakeGpu
from sft.plan.cards import Card, find_card


class Chip(NamedTuple):
    """What kernels are chosen by."""

    capability: tuple[int, int]
    processors: int


CHIPS: dict[str, Chip] = {
    "T4": Chip((7, 5), 40),
    "RTX3090": Chip((8, 6), 82),
}
"""NVIDIA's white papers: compute capability, multiprocessors. Cards that are sizes are taken for RTX3090s."""


def plug_in(name: str) -> FakeGpu:
    """A GPU of this name as `cuda:0`, for the rest of the process's life. Tensors are on it inside of `with` it."""
    guard.install()
    card, chip, gpu = find_card(name), CHIPS.get(name, CHIPS["RTX3090"]), FakeGpu()
    _answer(card, chip, gpu)
    _let_parameters_be_fake()
    kernels.install(gpu, chip.capability)
    return gpu


def _answer(card: Card, chip: Chip, gpu: FakeGpu) -> None:
    """torch.cuda's functions."""
    major, minor = chip.capability
    properties = SimpleNamespace(
        name=card.name, total_memory=int(card.memory), major=major, minor=minor,
        multi_processor_count=chip.processors, warp_size=32, gcnArchName="",
    )  # fmt: skip
    memory = gpu.memory
    functions: dict[str, Any] = {
        "is_available": True, "device_count": 1, "current_device": 0, "is_initialized": False, "_lazy_init": None,
        "set_device": None, "empty_cache": None, "ipc_collect": None, "reset_peak_memory_stats": None,
        "manual_seed": None, "manual_seed_all": None, "set_rng_state": None, "get_rng_state_all": [],
        "get_device_name": card.name, "get_device_properties": properties, "get_device_capability": chip.capability,
        "current_stream": SimpleNamespace(cuda_stream=0),
    }  # fmt: skip
    for name, answer in functions.items():
        setattr(torch.cuda, name, lambda *_, _answer=answer, **__: _answer)
    torch.cuda.get_rng_state = lambda *_: torch.zeros(16, dtype=torch.uint8)
    torch.cuda.is_bf16_supported = lambda including_emulation=True: card.bfloat16 or including_emulation
    torch.cuda.mem_get_info = lambda *_: (int(card.memory - memory.now), int(card.memory))
    for name in ("memory_allocated", "memory_reserved"):
        setattr(torch.cuda, name, lambda *_: memory.now)
    for name in ("max_memory_allocated", "max_memory_reserved"):
        setattr(torch.cuda, name, lambda *_: memory.peak)
    torch.cuda.synchronize = lambda *_: gpu.wait("synchronize")
    fake_tensor.init_gpu_context = lambda device: None
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(…, device="cuda")` is made on the CPU and copied

    def tolist(tensor: FakeTensor) -> Any:
        if tensor.fake_device.type == "cuda":
            gpu.wait("numbers to Python")
        return gpu.values(tensor).tolist()

    FakeTensor.tolist = tolist
    torch.Tensor.pin_memory = lambda tensor, *_: tensor


def _let_parameters_be_fake() -> None:
    """bitsandbytes' parameters are views of tensors' insides, which fake ones have none of: they change their class.

    For the same reason, a module's parameters are given new data where PyTorch would exchange them for others.
    """
    for kind in (bitsandbytes.nn.Int8Params, bitsandbytes.nn.Params4bit):
        _let_be_fake(kind)

    def apply(module: torch.nn.Module, function: Any, recurse: bool = True) -> torch.nn.Module:
        for child in module.children() if recurse else ():
            child._apply(function)
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            with torch.no_grad():
                new = function(parameter)
            if new is parameter:
                continue
            fake = isinstance(new, FakeTensor), isinstance(parameter, FakeTensor)
            if all(fake) or (not any(fake) and new.device.type == parameter.device.type):
                _set_data(parameter, new)
            else:
                module._parameters[name] = torch.nn.Parameter(new, parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = function(buffer)
        return module

    torch.nn.Module._apply = apply


def _set_data(tensor: Any, new: Any) -> None:
    torch.Tensor.data.__set__(tensor, new)
    if isinstance(new, FakeTensor):
        tensor.fake_device = new.fake_device


def _let_be_fake(kind: Any) -> None:
    make = kind.__new__
    data = property(lambda one: torch.Tensor.data.__get__(one), _set_data)

    def new(cls: Any, content: Any = None, requires_grad: bool = False, **settings: Any) -> Any:
        if not isinstance(content, FakeTensor):
            return make(kind, content, requires_grad, **settings)
        template = make(kind, torch.empty(0), False, **settings)
        one = content.detach()
        one.__class__ = fake
        one.__dict__ |= template.__dict__
        one._is_param = True
        return one

    fake = type(f"Fake{kind.__name__}", (FakeTensor, kind), {"__new__": new, "data": data})
    kind.__new__ = new
