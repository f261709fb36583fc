"""A GPU that is not there: real code and real rows, tensors on `cuda` that have shapes and no contents.

With `FakeGpu(card)`, everything inside sees one GPU. Tensors on it are PyTorch's FakeTensors, which refuse operations
across devices and of types that do not go together, as a GPU does. What decides shapes and branches (ids, labels,
masks, positions: integers and booleans) is computed on the CPU beside them. Counted are memory by storage, kernels, and
the places where the program waits for the GPU.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import arg_tree_leaves, tree_map

from benchmarks.shapes.memory import Memory, caller

aten = torch.ops.aten
KNOWN_ELEMENTS = 2**25
"""Integers and booleans have values up to so many elements; of floating-point numbers, single ones have."""
OUTLIERS = 32
"""Assumed number of true elements where only a GPU would know: bitsandbytes' columns of outliers."""
BELIEVED = {"aten::isfinite": 1, "aten::argmax": 7, "aten::searchsorted": 7}
"""Results of what nobody knows: logits are finite, and the token that is chosen by them ends no answer."""
OF_ONE_TYPE = {
    f"aten::{name}"
    for name in (
        "mm",
        "addmm",
        "bmm",
        "baddbmm",
        "mv",
        "addmv",
        "dot",
        "convolution",
        "native_layer_norm",
        "index_put_",
    )
}
"""Operations whose floating-point arguments are of one type on a GPU, which fake tensors do not check."""

Kernel = Callable[..., Any]
"""Takes the GPU, then what the operation takes; may hand back NotImplemented."""


class FakeGpu(TorchDispatchMode):
    """The mode. `kernels` counts operations that compute, `waits` those that need a result on the CPU, by place."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory()
        self.kernels = 0
        self.waits: Counter[str] = Counter()
        self.chosen: Counter[str] = Counter()
        """Kernels of attention."""
        self.stand_ins = dict(_STAND_INS)
        """Operations by name ("aten::nonzero", "package::operation.overload") and what is done in their place."""
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return args[0].fake_device if isinstance(args[0], FakeTensor) else torch.device("cpu")
        tensors = [leaf for leaf in arg_tree_leaves(*args, **kwargs) if isinstance(leaf, torch.Tensor)]
        device = kwargs.get("device")
        if not any(isinstance(one, FakeTensor) for one in tensors) and (
            device is None or torch.device(device).type != "cuda"
        ):
            return func(*args, **kwargs)
        stand_in = self.stand_ins.get(func.name()) or self.stand_ins.get(func._schema.name)
        if stand_in is not None:
            with self:
                result = stand_in(self, func, *args, **kwargs)
            if result is not NotImplemented:
                return result
        if _is_made_of_others(func) and func._schema.name not in BELIEVED:
            with self:
                return func.decompose(*args, **kwargs)
        return self._run(func, args, kwargs, tensors)

    def _run(self, func: Any, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> Any:
        if "generator" in kwargs:
            kwargs = {key: value for key, value in kwargs.items() if key != "generator"}
        if func._schema.name in OF_ONE_TYPE:
            types = {one.dtype for one in tensors if one.dtype.is_floating_point}
            if len(types) > 1:
                raise TypeError(f"{func.name()} of {' and '.join(sorted(map(str, types)))}")
        fake_args, fake_kwargs = args, kwargs
        if not all(isinstance(one, FakeTensor) for one in tensors):
            fake_args, fake_kwargs = tree_map(self._as_fake, (args, kwargs))
        with self._fake:
            result = func(*fake_args, **fake_kwargs)
        results = [leaf for leaf in arg_tree_leaves(result) if isinstance(leaf, FakeTensor)]
        new = [self.memory.see(one) for one in results if one.fake_device.type == "cuda"]
        if func._schema.is_mutable or (any(new) and "empty" not in func._schema.name):
            self.kernels += 1
        if _goes_to_cpu(func, args, results):
            self.wait("copy to the CPU")
        _give_values(func, args, kwargs, tensors, results)
        return result

    def _as_fake(self, leaf: Any) -> Any:
        is_real = isinstance(leaf, torch.Tensor) and not isinstance(leaf, FakeTensor)
        return self._fake.from_tensor(leaf) if is_real else leaf

    def wait(self, what: str) -> None:
        """The program needs a result of the GPU before it can go on."""
        self.waits[f"{what}: {caller()}"] += 1

    def on_gpu(self, real: torch.Tensor, device: torch.device) -> torch.Tensor:
        """`real` as a fake tensor that keeps its values."""
        return real.to(device)

    def values(self, tensor: torch.Tensor) -> torch.Tensor:
        """The values of `tensor`; where nobody knows them, ones."""
        known = getattr(tensor, "known", None)
        if known is not None:
            return known
        with _without_modes():
            return torch.ones(tensor.shape, dtype=tensor.dtype)


@functools.cache
def _is_made_of_others(func: Any) -> bool:
    """Whether a GPU runs others in its place: a kernel of its own it has where a CPU has one.

    Autograd takes such operations apart before they come here, but not in inference, and not inside of another.
    """
    has_kernel = functools.partial(torch._C._dispatch_has_kernel_for_dispatch_key, func.name())
    return has_kernel("CompositeImplicitAutograd") and not has_kernel("CPU")


def _goes_to_cpu(func: Any, args: Any, results: list[FakeTensor]) -> bool:
    written_there = func._schema.name == "aten::copy_" and not isinstance(args[0], FakeTensor)
    return written_there or any(one.fake_device.type == "cpu" for one in results)


@contextlib.contextmanager
def _without_modes() -> Iterator[None]:
    with torch._C.DisableTorchFunction(), torch.utils._python_dispatch._disable_current_modes():
        yield


# -- values beside fake tensors


def _give_values(func: Any, args: Any, kwargs: Any, tensors: list[torch.Tensor], results: list[FakeTensor]) -> None:
    """Compute on the CPU what is known: `results` of known arguments. What is written over with others is not, then."""
    if not func._schema.is_mutable and not any(map(_is_wanted, results)):
        return
    known = all(not isinstance(one, FakeTensor) or hasattr(one, "known") for one in tensors)
    random = torch.Tag.nondeterministic_seeded in func.tags or "empty" in func._schema.name
    if known and results and not random:
        done = func(*tree_map(_value, args), **tree_map(_value, kwargs))
        for one, value in zip(results, arg_tree_leaves(done), strict=True):
            if _is_wanted(one):
                one.known = value
    elif func._schema.name in BELIEVED:
        with _without_modes():
            results[0].known = torch.full(results[0].shape, BELIEVED[func._schema.name], dtype=results[0].dtype)
    else:
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.is_write and hasattr(value, "known"):
                del value.known


def _is_wanted(tensor: FakeTensor) -> bool:
    return tensor.numel() <= (1 if tensor.dtype.is_floating_point else KNOWN_ELEMENTS)


def _value(leaf: Any) -> Any:
    if isinstance(leaf, FakeTensor):
        return leaf.known
    return torch.device("cpu") if isinstance(leaf, torch.device) else leaf


# -- operations that wait for the GPU, and those whose results nobody knows


def _item(gpu: FakeGpu, func: Any, tensor: torch.Tensor) -> Any:
    gpu.wait(f"{str(tensor.dtype)[6:]} to Python")
    return gpu.values(tensor).item()


def _nonzero(gpu: FakeGpu, func: Any, mask: torch.Tensor) -> torch.Tensor:
    gpu.wait("number of true elements")
    gpu.kernels += 2
    with _without_modes():
        known = getattr(mask, "known", None)
        found = torch.zeros(OUTLIERS, mask.dim(), dtype=torch.long) if known is None else known.nonzero()
    return gpu.on_gpu(found, mask.device)


def _index(gpu: FakeGpu, func: Any, tensor: torch.Tensor, indices: Any, *more: Any) -> Any:
    """`tensor[mask]`: the true elements' places are looked up first."""
    if not any(index is not None and index.dtype == torch.bool for index in indices):
        return NotImplemented
    places: list[Any] = []
    for index in indices:
        is_mask = index is not None and index.dtype == torch.bool
        places += index.nonzero().unbind(1) if is_mask else [index]
    return func(tensor, places, *more)


def _unscale(gpu: FakeGpu, func: Any, gradients: Any, found: torch.Tensor, inverse: torch.Tensor) -> None:
    """As on a GPU, gradients in fp16 are refused; these ones are finite, and what was found stays 0."""
    gpu.kernels += 1
    if any(gradient.dtype == torch.float16 for gradient in gradients):
        raise ValueError("attempting to unscale fp16 gradients")


def _update_scale(gpu: FakeGpu, func: Any, scale: torch.Tensor, *_: Any) -> torch.Tensor:
    gpu.kernels += 1
    return scale


_STAND_INS: dict[str, Kernel] = {
    "aten::_local_scalar_dense": _item,
    "aten::nonzero": _nonzero,
    "aten::index": _index,
    "aten::index_put_": _index,
    "aten::_amp_foreach_non_finite_check_and_unscale_": _unscale,
    "aten::_amp_update_scale_": _update_scale,
}
