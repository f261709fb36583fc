"""Attention that stays inside documents: the rows of a bin, one after another, never see each other.

transformers makes a dense mask of tokens × tokens from position ids that start again. That is exact and slow. The two
attentions registered here need no mask and take the documents' borders from `cu_seq_lens_q`, or their lengths, which
the CPU knows, from `document_lengths`. Batches that are not packed go through PyTorch's attention with transformers'
own mask, as ever.

With `shared_prefixes`, documents begin with another one of their bin (see that module) and attend as whole rows.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch.nn.attention import varlen
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import (
    AttentionMaskInterface,
    and_masks,
    causal_mask_function,
    packed_sequence_mask_function,
    sdpa_mask,
    sliding_window_causal_mask_function,
)

from sft.model.attention import cpu
from sft.model.attention.shared_prefix import Prefixes, own_tokens, whole_rows
from sft.model.attention.window import window_mask
from sft.model.families import FAMILIES
from sft.system.errors import UserError

PackedAttention = Literal["auto", "dense", "documents", "varlen"]

STATIC_ROPE = ("default", "linear", "llama3", "yarn")
"""Rotary embeddings whose frequencies do not depend on how long a sequence is: a bin is longer than its documents."""


def packing_obstacle(config: PretrainedConfig) -> str | None:
    """Why rows of this model cannot be packed, or None where packing is proved to be exact."""
    family = FAMILIES.get(config.model_type)
    if family is None or not family.packs:
        return f"for the architecture {config.model_type} it is not proved that packed rows do not see each other"
    ropes = getattr(config, "rope_parameters", None) or {}
    for rope in (ropes, *ropes.values()):  # Gemma3 has one a layer type
        kind = rope.get("rope_type", "default") if isinstance(rope, dict) else "default"
        if kind not in STATIC_ROPE:
            return f"its rotary embedding ({kind}) depends on the length of a sequence"
    if getattr(config, "use_bidirectional_attention", False) or getattr(config, "attn_logit_softcapping", None):
        return "its attention is bidirectional or has capped logits"
    return None


def use_packed_attention(model: PreTrainedModel, kind: PackedAttention, device: torch.device) -> bool:
    """Let `model` attend within documents. Raises UserError where this attention cannot run.

    Returns whether documents may share prefixes, which all but transformers' own mask can do.

    dense: transformers' mask, anywhere. documents: a call of PyTorch's attention for each document. varlen: PyTorch's
    kernel for documents of different lengths, on a GPU in bfloat16. auto: documents on a CPU, dense on a GPU.
    """
    if kind == "auto":
        kind = "documents" if device.type == "cpu" else "dense"
    if kind == "varlen" and (device.type != "cuda" or model.dtype != torch.bfloat16):
        raise UserError("training.packed_attention: varlen needs a GPU and a model in bfloat16; use documents or dense")
    model.set_attn_implementation("sdpa" if kind == "dense" else f"packed_{kind}")
    return kind != "dense"


def _mask(attention_mask: torch.Tensor | None = None, allow_is_causal_skip: bool = True, **kwargs: Any) -> Any:
    # transformers forbids the plain causal shortcut, without a mask for padding, where position ids start again.
    if attention_mask is None and not allow_is_causal_skip:
        # A mask of no elements marks the batch: what knows nothing of it fails, and does not attend to everything.
        return torch.empty(0, device=kwargs["device"])
    return sdpa_mask(attention_mask=attention_mask, allow_is_causal_skip=allow_is_causal_skip, **kwargs)


def packed_mask(config: PretrainedConfig, document: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
    """The attention mask of a packed batch, for which transformers would first ask the GPU whether it is packed.

    Its own mask under its own attention (true where a token sees another; by kind of layer where layers differ), else
    the mark of the attentions registered here. `document`, (1, tokens), numbers each token's document.
    """
    if config._attn_implementation != "sdpa":
        return document.new_empty(1, 0, 0, 0)
    length, device = document.shape[1], document.device
    functions = {"full_attention": causal_mask_function}
    if window := "sliding_attention" in (getattr(config, "layer_types", None) or []):
        functions["sliding_attention"] = sliding_window_causal_mask_function(config.sliding_window)
    masks = {}
    for kind, sees in functions.items():
        sees = and_masks(sees, packed_sequence_mask_function(document))
        masks[kind] = sdpa_mask(1, length, length, mask_function=sees, allow_is_causal_skip=False, device=device)
    return masks if window else masks["full_attention"]


class Documents(NamedTuple):
    """Where the documents of a packed batch begin and end, and how they attend."""

    borders: torch.Tensor
    """(documents + 1,) first tokens of the documents, and the end of the last one, in int32."""
    longest: int
    """Tokens of the longest document."""
    lengths: list[int] | None
    """Tokens of each document, where the CPU knows them; None: the borders tell, for which a GPU is waited for."""
    dropout: float
    scaling: float | None
    """What scores are multiplied by; None: 1 / sqrt(head size)."""
    window: int | None
    """Tokens that a token sees, itself included; None: all before it."""


Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Documents], torch.Tensor]
"""Queries, keys and values (1, heads, tokens, size) of whole documents one after another → (1, tokens, heads, size)."""


def _attention(
    attend: Attend,
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    shared_prefixes: Prefixes | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' interface of an attention: packed batches go to `attend`, all others to PyTorch's own."""
    if attention_mask is None or attention_mask.numel():  # not the mark that `_mask` makes
        if shared_prefixes is not None:
            raise ValueError("documents that share prefixes have no attention mask")
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    borders, longest = kwargs.get("cu_seq_lens_q"), kwargs.get("max_length_q", 0)
    if borders is None:
        raise ValueError("position_ids start again within a row, but cu_seq_lens_q does not say where documents end")
    documents = Documents(
        borders, longest, kwargs.get("document_lengths"), kwargs["dropout"], kwargs["scaling"],
        kwargs.get("sliding_window"),
    )  # fmt: skip
    if shared_prefixes is None:
        return attend(query, key, value, documents), None
    # The prefix is put in front of each row that shares it, so that the row attends as if it stood there alone; what
    # its tokens attended to is known from the prefix's own row, and is left out again.
    query, key, value = (whole_rows(states, shared_prefixes) for states in (query, key, value))
    return own_tokens(attend(query, key, value, documents), shared_prefixes), None


def _one_by_one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, documents: Documents) -> torch.Tensor:
    """A call of attention for each document: work that grows with the squares of rows, and not of the whole bin."""
    lengths = documents.lengths or documents.borders.diff().tolist()
    outputs = []
    for q, k, v in zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True):
        if not documents.dropout and cpu.can_attend(q):
            scaling = documents.scaling or q.shape[-1] ** -0.5
            outputs.append(cpu.attend(q[0], k[0], v[0], scaling, documents.window)[None])
            continue
        window = window_mask(q.shape[2], documents.window, q.device)
        attended = scaled_dot_product_attention(
            q, k, v, window, documents.dropout, is_causal=window is None, scale=documents.scaling,
            enable_gqa=q.shape[1] != k.shape[1],
        )  # fmt: skip
        outputs.append(attended.transpose(1, 2))
    return torch.cat(outputs, dim=1)


def _varlen(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, documents: Documents) -> torch.Tensor:
    """PyTorch's kernel for documents of different lengths, all in one call."""
    if documents.dropout:
        raise ValueError("varlen attention has no dropout")
    # Its window counts the tokens before a token, transformers' the token itself as well.
    window = (-1 if documents.window is None else documents.window - 1, 0)
    q, k, v = (states.squeeze(0).transpose(0, 1) for states in (query, key, value))  # (tokens, heads, size)
    borders, longest = documents.borders, documents.longest
    attended = varlen.varlen_attn(
        q, k, v, borders, borders, longest, longest,
        scale=documents.scaling, window_size=window, enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    return attended.unsqueeze(0)


for _name, _attend in (("packed_documents", _one_by_one), ("packed_varlen", _varlen)):
    AttentionInterface.register(_name, functools.partial(_attention, _attend))
    AttentionMaskInterface.register(_name, _mask)
