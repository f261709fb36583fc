"""What differs between model families, by architecture (`config.model_type`): a table, and its defaults checked."""

import dataclasses
from typing import Any

from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig, PreTrainedModel

from sft.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Family:
    """An architecture of transformers and what its models need.

    `targets` are LoRA's modules where `lora.target_modules` is left out: the layers the models' users adapt.
    `tokenizer` is the repository to take the tokenizer from where a model's own may hold none; None: it has its own.
    """

    targets: tuple[str, ...]
    tokenizer: str | None = None


FAMILIES = {
    "gpt_neox": Family(("query_key_value",)),
    "gpt_neox_japanese": Family(("query_key_value",)),
    "gptj": Family(("q_proj", "v_proj"), tokenizer="EleutherAI/gpt-j-6B"),
    "llama": Family(("q_proj", "v_proj")),
    "gemma3_text": Family(("q_proj", "k_proj", "v_proj", "o_proj")),
}
"""The families that are tested here. Of any other architecture PEFT's own table has the targets, if at all."""

ATTENTION_FLAGS = {
    "sdpa": "_supports_sdpa",
    "flash_attention_2": "_supports_flash_attn",
    "flex_attention": "_supports_flex_attn",
}
"""The attribute with which a model class of transformers says that it supports an attention implementation."""


def default_targets(model: PreTrainedModel) -> list[str]:
    """LoRA's target modules for a model of which the configuration names none.

    Raises UserError when nothing is known about its architecture, or what is known is not in the model.
    """
    kind = model.config.model_type
    if kind in FAMILIES:
        return list(FAMILIES[kind].targets)
    targets = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(kind, [])
    there = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    if not targets or not there.issuperset(targets):
        raise UserError(
            f"lora.target_modules: no default is known for the architecture {kind}; set it to names of its linear "
            "layers, or to all-linear"
        )
    return list(targets)


def check_attention(config: PretrainedConfig, attention: str) -> None:
    """Raise UserError when models of this configuration do not support the attention implementation."""
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if model_class is None:  # code of its own, which answers for itself
        return
    known = ["eager", *(name for name, flag in ATTENTION_FLAGS.items() if getattr(model_class, flag, False))]
    if attention not in known:
        raise UserError(
            f"model.attention: {model_class.__name__} does not support {attention}, only {', '.join(known)}"
        )


def check_checkpointing(model: PreTrainedModel) -> None:
    """Raise UserError when the activations of this architecture cannot be checkpointed."""
    if not model.supports_gradient_checkpointing:
        name = type(model).__name__
        raise UserError(
            f"training.activation_checkpointing: {name} does not support it; for less memory lower training.max_length"
        )
