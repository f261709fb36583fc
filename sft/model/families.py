"""Model families: all that is known of an architecture of transformers stands in one object here.

What transformers' own classes say, they are asked: which attention they support, whether activations are checkpointed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    GPTNeoXJapaneseTokenizer,
    LlamaTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5Tokenizer,
)

from sft.model.repair import with_sentencepiece_backend, with_unigrams, with_whole_characters
from sft.system.errors import UserError


@dataclass(frozen=True)
class Family:
    """An architecture and what its models need."""

    model_type: str
    """Its name in transformers (`config.model_type`)."""
    targets: tuple[str, ...]
    """LoRA's modules where `lora.target_modules` is left out: the layers that the models' users adapt."""
    packs: bool = False
    """Whether packed rows are proved to have the logits, loss and gradient of separate rows (tests/test_packing.py)."""
    part_of: str | None = None
    """Architecture of the multi-modal models whose text model it is: of those, the text model alone is loaded."""
    tokenizer: str | None = None
    """The repository to take the tokenizer from where a model's own may hold none; None: it has its own."""
    repairs: Mapping[type, Callable[[Any], Any]] = field(default_factory=dict)
    """Class of a tokenizer in transformers → what mends it: a tokenizer may be loaded without its model."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Beginning of hub ids → the hub's name of their licence, or two joined by -and-; of others the card says to see
    the model's page."""


_FAMILIES = (
    Family(
        "gpt_neox", ("query_key_value",), packs=True, repairs={T5Tokenizer: with_sentencepiece_backend},  # rinna's
        licences={"cyberagent/open-calm-": "cc-by-sa-4.0", "rinna/japanese-gpt-neox-": "mit"},
    ),
    Family(
        "gpt_neox_japanese", ("query_key_value",), repairs={GPTNeoXJapaneseTokenizer: with_whole_characters},
        licences={"abeja/gpt-neox-japanese-2.7b": "mit"},
    ),
    Family(
        "gptj", ("q_proj", "v_proj"), tokenizer="EleutherAI/gpt-j-6B",
        licences={"NovelAI/genji-jp": "apache-2.0"},
    ),
    Family(
        "llama", ("q_proj", "v_proj"), packs=True, repairs={LlamaTokenizer: with_unigrams},  # sarashina's
        licences={
            "sbintuitions/sarashina2.2-": "mit", "llm-jp/llm-jp-3-1.8b": "apache-2.0",
            "llm-jp/llm-jp-4-8b-": "apache-2.0", "tokyotech-llm/Llama-3.1-Swallow-8B-v0.5": "llama3.1-and-gemma",
        },
    ),
    Family(
        "gemma3_text", ("q_proj", "k_proj", "v_proj", "o_proj"), packs=True, part_of="gemma3",
        licences={"google/gemma-": "gemma"},
    ),
    Family("qwen2", ("q_proj", "v_proj"), packs=True, licences={"Qwen/Qwen2.5-Coder-1.5B": "apache-2.0"}),
    Family(
        "qwen3", ("q_proj", "v_proj"), packs=True,
        licences={"Qwen/Qwen3-": "apache-2.0", "tokyotech-llm/Qwen3-Swallow-": "apache-2.0"},
    ),
)  # fmt: skip
FAMILIES = {family.model_type: family for family in _FAMILIES}
"""The families that are tested here. Of any other architecture PEFT's own table has the targets, if at all."""

TEXT_WEIGHTS = {r"^language_model\.model\.": "model.", r"^model\.language_model\.": "model."}
"""Where a multi-modal model's files have its text model's weights (either way is in use), and where that has them."""

ATTENTION_FLAGS = {
    "sdpa": "_supports_sdpa",
    "flash_attention_2": "_supports_flash_attn",
    "flex_attention": "_supports_flex_attn",
}
"""The attribute with which a model class of transformers says that it supports an attention implementation."""


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """What of a model is used: all of it, or of a multi-modal one whose text model is known here, that one."""
    if all(family.part_of != config.model_type for family in FAMILIES.values()):
        return config
    text = config.get_text_config()
    text._commit_hash = getattr(config, "_commit_hash", None)
    return text


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
        remedy = "set it to names of its linear layers, or to all-linear"
        raise UserError(f"lora.target_modules: no default is known for the architecture {kind}; {remedy}")
    return list(targets)


def repaired(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """`tokenizer`, or where its family has a repair for it, one that does what it should have done."""
    for family in FAMILIES.values():
        for kind, repair in family.repairs.items():
            if isinstance(tokenizer, kind):
                tokenizer = repair(tokenizer)
    return tokenizer


def licence_of(hub_id: str) -> str | None:
    """The hub's name of a model's licence; None when no family knows it."""
    known = (item for family in FAMILIES.values() for item in family.licences.items())
    return next((licence for beginning, licence in known if hub_id.startswith(beginning)), None)


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
