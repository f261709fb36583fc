"""What training needs of a GPU, before there is one: memory and arithmetic, from the model's shape alone.

The activations are not a formula of ours: the model without weights (`load_skeleton`, LoRA on top) does a forward and
a backward pass in which nothing is computed, and the bytes that are held at once are counted.
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from sft.model.loss import linear_cross_entropy
from sft.plan.cards import GB

TRAINED_BYTES = 16
"""A trained weight: itself, its gradient and AdamW's two moments in fp32."""
CUDA_BYTES = 0.6 * GB
"""Assumed for the CUDA context and the libraries' workspaces; not measured."""
ALLOCATOR_SHARE = 0.07
"""Share of all else that is lost between blocks of different length: the most that a simulation of PyTorch's allocator
loses for a configuration of this repository (`make test-shapes`)."""
COMFORTABLE = 0.9
"""Share of the card above which the estimate is too near to be relied on."""
UTILISATION = (0.2, 0.6)
"""Shares of the peak arithmetic between which training is assumed to run; not measured."""

Quantization = Mapping[str, Any] | None


Form = Literal["padded", "dense", "documents"]


class Layout(NamedTuple):
    """What decides about memory beside the model: a micro-batch and settings of its training."""

    rows: int
    length: int
    """Tokens of the longest row, or where rows are packed as many as each row of `rows` gives to a bin."""
    checkpointing: bool
    """Whether activations are computed again in the backward pass (`training.activation_checkpointing`)."""
    quantization: Quantization
    """Arguments of BitsAndBytesConfig; None: not quantised."""
    form: Form = "padded"
    """padded: rows × length. dense, documents: one bin of rows · length tokens, with a mask or without."""
    autocast: torch.dtype | None = None
    """The type in which matrix products are computed, while norms are in fp32; None: all in the weights' type."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and tokens that the model sees."""
        return (self.rows, self.length) if self.form == "padded" else (1, self.rows * self.length)

    @property
    def masked(self) -> bool:
        """Whether attention has a mask of tokens × tokens, since rows end at different places."""
        return self.rows > 1 if self.form == "padded" else self.form == "dense"


class Need(NamedTuple):
    """Bytes of GPU memory by what they are for."""

    weights: float
    trained: float
    activations: float
    """The most that forward pass, loss and backward pass hold at once."""
    rest: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


def estimate(model: PreTrainedModel, layout: Layout) -> Need:
    """Peak memory of training `model`, which holds no weights but its LoRA (or has all its weights trainable)."""
    quantised = [linear for _, linear in quantised_linears(model, layout.quantization)]
    weights = _weight_bytes(model, quantised, layout.quantization)
    trained = TRAINED_BYTES * sum(p.numel() for p in model.parameters() if p.requires_grad)
    activations = _held_at_once(model, layout, quantised)
    rest = CUDA_BYTES + ALLOCATOR_SHARE * (weights + trained + activations)
    return Need(weights, trained, activations, rest)


def quantised_linears(model: PreTrainedModel, quantization: Quantization) -> Iterator[tuple[str, torch.nn.Linear]]:
    """Names and modules of the linear layers that transformers' loading quantises: all but the head, by default."""
    if not quantization:
        return
    left_out = HfQuantizer.get_modules_to_not_convert(
        model, quantization.get("llm_int8_skip_modules"), model._keep_in_fp32_modules
    )
    for name, module in model.named_modules():
        name = name.removesuffix(".base_layer")  # what LoRA wraps
        if type(module) is torch.nn.Linear and ".lora_" not in name and should_convert_module(name, left_out):
            yield name, module


def flops_per_token(model: PreTrainedModel, checkpointing: bool) -> float:
    """Arithmetic of training on one token: forward, backward, and again forward where activations are not kept.

    Two operations a matrix weight and pass. Frozen weights need no gradient of their own; attention over the few
    hundred tokens of a row, and LoRA's own matrices, are left out: a few per cent.
    """
    head = model.get_output_embeddings().weight
    looked_up = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)} - {id(head)}
    base = (p for name, p in model.named_parameters() if ".lora_" not in name)
    matrices = (p for p in base if p.dim() > 1 and id(p) not in looked_up)
    return sum(2.0 * (2 + p.requires_grad + (checkpointing and p is not head)) * p.numel() for p in matrices)


def _weight_bytes(model: PreTrainedModel, quantised: list[torch.nn.Linear], quantization: Quantization) -> float:
    """The frozen weights. bitsandbytes keeps a scale a row in 8-bit; in 4-bit one a block of 64, itself 8-bit under
    double quantisation with one fp32 scale for 256 of them."""
    settings = quantization or {}
    scale = (1 + 4 / 256) if settings.get("bnb_4bit_use_double_quant") else 4
    weight, row = (0.5 + scale / 64, 0) if settings.get("load_in_4bit") else (1.0, 4)
    total = sum(m.weight.numel() * weight + m.out_features * row for m in quantised)
    done = {id(m.weight) for m in quantised}
    rest = [p for p in model.parameters() if not p.requires_grad and id(p) not in done]
    return total + sum(p.numel() * p.element_size() for p in rest)


def _held_at_once(model: PreTrainedModel, layout: Layout, quantised: list[torch.nn.Linear]) -> int:
    """The most bytes alive beside the weights while a micro-batch goes forward and backward without being computed."""
    rows, length = layout.shape
    head = model.get_output_embeddings()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = torch.empty_like(parameter)
    if layout.checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": False})
    held = _Held([*model.parameters(), *model.buffers(), *(parameter.grad for parameter in trained)])
    as_on_gpu = _AsOnGpu(layout.autocast, quantised, layout.quantization)
    try:
        with torch.enable_grad(), as_on_gpu, held:
            ids = torch.zeros(layout.shape, dtype=torch.long, device="meta")
            mask = ids.new_ones(rows, 1, length, length, dtype=torch.bool) if layout.masked else None
            hidden = model.train().base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            hidden = hidden.flatten(0, 1).clone().to(head.weight.dtype)  # of the supervised positions: at most all
            nll = linear_cross_entropy(hidden, head.weight, head.bias, ids.flatten())
            # Of a tensor itself, the gradient would be computed outside of `as_on_gpu`.
            torch.autograd.backward(get_gradient_edge(nll), torch.empty_like(nll))
    finally:
        if layout.checkpointing:
            model.gradient_checkpointing_disable()
            model.disable_input_require_grads()
        for parameter in trained:
            parameter.grad = None
    return held.peak


class _Held(TorchDispatchMode):
    """Counts the bytes of all tensors alive that were not `known` before."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size


class _AsOnGpu(TorchFunctionMode):
    """What a GPU's kernels hold where tensors without data would take another path.

    Args:
        autocast: see `Layout`.
        quantised: the linear layers of which bitsandbytes holds the weights.
        quantization: how it does.
    """

    def __init__(
        self, autocast: torch.dtype | None, quantised: list[torch.nn.Linear], quantization: Quantization
    ) -> None:
        super().__init__()
        self.autocast = autocast
        self.quantised = {id(linear.weight) for linear in quantised}
        settings = quantization or {}
        four_bit = getattr(torch, str(settings.get("bnb_4bit_compute_dtype") or "float32"))  # the library's default
        self.computed = None if settings.get("load_in_8bit") else four_bit

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.__bool__ and args[0].is_meta:
            return True  # transformers asks whether nothing is padded or packed
        if func is functional.linear and id(args[1]) in self.quantised:
            return _Quantised.apply(*args, self.computed)
        if self.autocast and func in (*IN_16_BITS, *IN_32_BITS):
            dtype = self.autocast if func in IN_16_BITS else torch.float32
            args = [value.to(dtype) if _is_floating(value) else value for value in args]
        if func is functional.scaled_dot_product_attention:
            query, key, value = args[:3]
            return _attention(query, key, value, kwargs.get("attn_mask"))
        if func is functional.dropout and kwargs.get("training", True) and kwargs.get("p", 0.5) > 0:
            return torch.native_dropout(args[0], kwargs.get("p", 0.5), True)[0]
        return func(*args, **kwargs)


IN_16_BITS = (functional.linear, torch.matmul, torch.bmm, torch.Tensor.matmul, functional.scaled_dot_product_attention)
IN_32_BITS = (functional.layer_norm, functional.softmax, torch.pow, torch.Tensor.pow, torch.rsqrt)
"""What autocast computes in which type on a GPU, as far as models of this field do it."""


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Flash attention, or with a mask the memory-efficient kernel, which takes it as a bias: one in every layer."""
    if mask is None:
        attended = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, True)[0]
    else:
        bias = query.new_empty(mask.shape).expand(*query.shape[:3], mask.shape[-1])
        attended = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, bias, True)[0]
    return attended.contiguous()  # a copy, which not every kernel spares


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


class _Quantised(torch.autograd.Function):
    """bitsandbytes' linear layer: hands back its input's type, keeps nothing, unpacks its weight for the gradient.

    In 4-bit it unpacks it for the product, too, and computes in `bnb_4bit_compute_dtype`. In 8-bit (None) the product
    is one of integers, with sums in 32 bits, and the gradient is computed in the input's type.
    """

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, computed: torch.dtype | None
    ) -> torch.Tensor:
        ctx.weight, ctx.types = weight, (computed or states.dtype, states.dtype)
        if computed is None:
            integers = torch.empty_like(states.to(torch.float16), dtype=torch.int8)
            sums = integers.new_empty(*states.shape[:-1], len(weight), dtype=torch.int32)
            return sums.to(torch.float16).to(states.dtype)
        return functional.linear(states.to(computed), torch.empty_like(weight, dtype=computed)).to(states.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        computed, handed_back = ctx.types
        unpacked = torch.empty_like(ctx.weight, dtype=computed)
        return (gradients[0].to(computed) @ unpacked).to(handed_back), None, None, None
