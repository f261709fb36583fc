"""Cross-entropy at supervised positions only, without ever building the logits of a whole batch.

A base model of this field has 30,000 to 262,000 words in its vocabulary, so logits dominate memory.
Here they exist for a few hundred tokens at a time: the gradient with respect to the hidden states is
computed in the forward pass, while a chunk's logits are at hand. A head that is trained itself needs its logits
again on the way back.
"""

import functools
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from sft.prompt.encoded_rows import IGNORE_INDEX
from sft.system.errors import UserError

CHUNK_TOKENS = 512
CHUNK_LOGITS = 2**27
"""The most tokens whose logits exist at once, and the most logits: fewer tokens where the vocabulary is large."""
CACHED_LOGITS = 2**18
"""Logits that a CPU keeps at hand in fp32 from one operation to the next: 1 MB, which a core's own cache holds. With
262,144 words, 1 token at a time takes 32 ms for 64 of them on a Xeon, 8 in fresh memory 72."""


def chunk_tokens(weight: torch.Tensor) -> int:
    """Tokens whose logits under a head of these weights, (vocabulary, width), exist at once."""
    return max(1, min(CHUNK_TOKENS, CHUNK_LOGITS // len(weight)))


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
    ) -> torch.Tensor:
        nll = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if hidden.requires_grad else None
        # Written over chunk after chunk: fresh memory of this size costs more than the arithmetic on it.
        size = chunk_tokens(weight)
        buffer = hidden.new_empty(min(size, len(targets)), len(weight))
        for start in range(0, len(targets), size):
            chunk = slice(start, start + size)
            logits = torch.mm(hidden[chunk], weight.T, out=buffer[: len(targets[chunk])])
            if bias is not None:
                logits += bias
            nll[chunk] = _differentiate_in_place(logits, targets[chunk])
            if gradient is not None:
                gradient[chunk] = torch.mm(logits, weight)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return nll

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * upstream[0][:, None]).to(gradient.dtype), None, None, None


def _differentiate_in_place(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """−ln p of each target, (tokens,) in fp32; `logits`, (tokens, vocabulary), become its derivative by them.

    That is the probabilities, less 1 at the target: in fp32, since of a p near 1 nothing would be left in 16 bits.
    """
    nll = []
    size = max(1, CACHED_LOGITS // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    buffer = None if logits.dtype == torch.float32 else torch.empty_like(logits[:size], dtype=torch.float32)
    for some, their_targets in zip(logits.split(size), targets[:, None].split(size), strict=True):
        exact = some if buffer is None else buffer[: len(some)].copy_(some)
        right = exact.gather(1, their_targets)
        largest = exact.amax(dim=1, keepdim=True)
        total = exact.sub_(largest).exp_().sum(dim=1, keepdim=True)
        nll.append(total.log() + largest - right)
        some.copy_(exact.div_(total).scatter_add_(1, their_targets, -torch.ones_like(total)))
    return torch.cat(nll).squeeze(1)


def linear_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
) -> torch.Tensor:
    """−ln p of each target under softmax(hidden · weightᵀ + bias).

    Args:
        hidden: (tokens, width), in the head's dtype.
        weight: (vocabulary, width).
        bias: (vocabulary,), or None.
        targets: (tokens,) ids.

    Returns:
        (tokens,) in fp32, nats.
    """
    if not weight.requires_grad and (bias is None or not bias.requires_grad):
        return _LinearCrossEntropy.apply(hidden, weight, bias, targets)

    def chunk_nll(hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return cross_entropy(linear(hidden, weight, bias).float(), targets, reduction="none")

    # Without targets there is one empty chunk: processes that share gradients wait for one of every weight.
    chunks = zip(*(rows.split(chunk_tokens(weight)) for rows in (hidden, targets)), strict=True)
    return torch.cat([checkpoint(chunk_nll, *chunk, use_reentrant=False) for chunk in chunks])


def supervised_positions(labels: torch.Tensor) -> torch.Tensor:
    """(supervised tokens,): the positions before those that have a label, in (batch, tokens) read row by row.

    A GPU is waited for, to learn their number; labels are on the CPU as long as they are in a collator.
    """
    rows, places = (labels[:, 1:] != IGNORE_INDEX).nonzero(as_tuple=True)
    return rows * labels.shape[1] + places


def add_token_nll(model: PreTrainedModel) -> None:
    """Let `model(**inputs, nll_labels=labels)` return the −ln p of every supervised token, without logits.

    The labels are (batch, tokens) with IGNORE_INDEX where unsupervised and are shifted here, as in every
    causal model of transformers; `nll_positions` are their `supervised_positions`, None: these are looked for. The
    result is (supervised tokens,) fp32 in reading order. All other calls stay as they were. Going through `forward`
    keeps PEFT's and DistributedDataParallel's hooks in play.
    Raises UserError where the logits are not a plain linear map of the last hidden state.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or getattr(model.config, "final_logit_softcapping", None):
        raise UserError(
            f"{type(model).__name__}: its output layer ({type(head).__name__}) is not a plain linear one, which the "
            "loss needs; leave it out of quantization (llm_int8_skip_modules) and of lora.target_modules"
        )
    plain_forward = model.forward

    # `generate` reads the signature to learn that the logits of a prompt can be left out.
    @functools.wraps(plain_forward.__func__)
    def forward(
        self: PreTrainedModel,
        *args: Any,
        nll_labels: torch.Tensor | None = None,
        nll_positions: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if nll_labels is None:
            return plain_forward(*args, **kwargs)
        hidden = self.base_model(*args, **kwargs).last_hidden_state.flatten(0, 1)
        positions = supervised_positions(nll_labels) if nll_positions is None else nll_positions
        targets = nll_labels.flatten().index_select(0, positions + 1)
        head = self.get_output_embeddings()
        supervised = hidden.index_select(0, positions).to(head.weight.dtype)
        return linear_cross_entropy(supervised, head.weight, head.bias, targets)

    model.forward = MethodType(forward, model)


@torch.inference_mode()
def reference_nll(model: nn.Module, pad_id: int, prompts: list[list[int]], references: list[list[int]]) -> list[float]:
    """Sum of −ln p over each reference's tokens given its prompt, in nats; one batch, teacher-forced.

    `model` has been through `add_token_nll` (below PEFT, if at all); ids as `encode_prompt` and `encode_answer`
    make them. An empty reference has 0.0.
    """
    pairs = list(zip(prompts, references, strict=True))
    rows = [torch.tensor(prompt + reference) for prompt, reference in pairs]
    answers = [torch.tensor([IGNORE_INDEX] * len(prompt) + reference) for prompt, reference in pairs]
    labels = pad_sequence(answers, batch_first=True, padding_value=IGNORE_INDEX)
    inputs = {
        "input_ids": pad_sequence(rows, batch_first=True, padding_value=pad_id),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
        "nll_labels": labels,
        "nll_positions": supervised_positions(labels),
    }
    device = next(model.parameters()).device
    nll = model(**{name: tensor.to(device) for name, tensor in inputs.items()}, use_cache=False)
    return torch.stack([part.sum() for part in nll.split([len(reference) for reference in references])]).tolist()
