"""What training needs of a GPU, before there is one: memory and arithmetic, from the model's shape alone.

The activations are not a formula of ours: the model without weights (`load_skeleton`, LoRA on top) does a
forward pass in which nothing is computed, and what autograd would keep for the backward pass is counted.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from sft.model.loss import chunk_tokens
from sft.plan.cards import GB

TRAINED_BYTES = 16
"""A trained weight: itself, its gradient and AdamW's two moments in fp32."""
CUDA_BYTES = 0.6 * GB
"""Assumed for the CUDA context and the libraries' workspaces; not measured."""
ALLOCATOR_SHARE = 0.10
"""Share of the activations assumed to be lost between blocks of different length; not measured."""
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
    autocast: bool = False
    """Whether fp32 weights are computed with in 16 bits."""

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
    loss: float
    rest: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


def estimate(model: PreTrainedModel, layout: Layout) -> Need:
    """Peak memory of training `model`, which holds no weights but its LoRA (or has all its weights trainable)."""
    quantised = dict(quantised_linears(model, layout.quantization))
    outside, layers, inputs, largest = _kept_for_backward(model, layout)
    # While one layer's gradients pass through, and a quantised weight is unpacked for it.
    passing = largest + max((m.weight.numel() * 2 for m in quantised.values()), default=0)
    if layout.checkpointing:
        # The inputs of all layers stay, and one layer at a time is computed again.
        stays, passing = outside + sum(inputs), passing + max(layers, default=0)
    else:
        stays = outside + sum(layers)
    hidden, logits = _loss_bytes(model, layout)
    activations = stays + passing
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Need(
        weights=_weight_bytes(model, list(quantised.values()), layout.quantization),
        trained=trained * TRAINED_BYTES,
        activations=activations,
        loss=hidden + max(0.0, logits - passing),  # the last logits are gone when gradients reach the layers
        rest=CUDA_BYTES + ALLOCATOR_SHARE * activations,
    )


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


def _loss_bytes(model: PreTrainedModel, layout: Layout) -> tuple[float, float]:
    """Hidden states and their gradient at supervised positions, and a chunk of logits beside its fp32 copy.

    A head that is trained has its chunk's gradients beside them, and under autocast a copy of itself.
    """
    head = model.get_output_embeddings().weight
    size = 2 if layout.autocast else head.element_size()
    logit = (size if size == 4 else size + 4) + 8 * head.requires_grad
    copy = 2 * head.numel() if layout.autocast else 0
    tokens = layout.rows * layout.length
    return 2 * tokens * head.shape[1] * size, min(chunk_tokens(head), tokens) * head.shape[0] * logit + copy


def _kept_for_backward(model: PreTrainedModel, layout: Layout) -> tuple[int, list[int], list[int], int]:
    """Bytes that autograd keeps: outside the layers, in each layer, each layer's input, and the largest tensor."""
    own = {t.untyped_storage()._cdata for t in itertools.chain(model.parameters(), model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}  # holding a storage keeps its address from reuse
    sizes: Counter[int | None] = Counter()
    inputs: list[int] = []
    layer: int | None = None  # the one that the forward pass is in

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own and storage._cdata not in kept:
            kept[storage._cdata] = storage
            sizes[layer] += storage.nbytes()
        return tensor

    def enter(module: Any, arguments: Any, named: Any) -> None:
        nonlocal layer
        layer = len(inputs)
        inputs.append((arguments[0] if arguments else named["hidden_states"]).nbytes)

    def leave(*_: Any) -> None:
        nonlocal layer
        layer = None

    rows, length = layout.shape
    ids = torch.zeros(layout.shape, dtype=torch.long, device="meta")
    # Attention on a GPU keeps the mask as a bias in every layer.
    mask = torch.ones(rows, 1, length, length, dtype=torch.bool, device="meta") if layout.masked else None
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    hooks = [module.register_forward_pre_hook(enter, with_kwargs=True) for module in layers]
    hooks += [module.register_forward_hook(leave) for module in layers]
    kernels = _AsOnGpu(torch.bfloat16 if layout.autocast else None)
    saved = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with contextlib.ExitStack() as stack:
        for context in (*hooks, torch.enable_grad(), saved, kernels):
            stack.enter_context(context)
        model.train().base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    largest = max((storage.nbytes() for storage in kept.values()), default=0)
    return sizes[None], [sizes[number] for number in range(len(inputs))], inputs, largest


class _AsOnGpu(TorchFunctionMode):
    """What a GPU's kernels keep where tensors without data would take another path; `autocast` is its type, if on."""

    def __init__(self, autocast: torch.dtype | None) -> None:
        super().__init__()
        self.autocast = autocast

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.__bool__ and args[0].is_meta:
            return True  # transformers asks whether nothing is padded or packed
        if self.autocast and func in (functional.linear, functional.scaled_dot_product_attention):
            args = [value.to(self.autocast) if isinstance(value, torch.Tensor) else value for value in args]
        if func is functional.scaled_dot_product_attention:
            mask = kwargs.get("attn_mask")
            bias = None if mask is None else args[0].new_empty(mask.shape)
            output = torch.ops.aten._scaled_dot_product_efficient_attention(*args[:3], bias, True)[0]
            return output.contiguous()  # a copy, which not every kernel spares
        if func is functional.dropout and kwargs.get("training", True) and kwargs.get("p", 0.5) > 0:
            return torch.native_dropout(args[0], kwargs.get("p", 0.5), True)[0]
        return func(*args, **kwargs)
