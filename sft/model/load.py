"""The base model and its tokenizer, loaded for one device in 4-bit, 8-bit or unquantised."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sft.model.families import FAMILIES, TEXT_WEIGHTS, check_attention, repaired, text_config
from sft.model.repair import with_newlines
from sft.system.errors import UserError, warn
from sft.system.hub import hub_is_absent, loading_error


def load_tokenizer(
    base: str, revision: str | None = None, trust_remote_code: bool = False, newline: str | None = None
) -> PreTrainedTokenizerBase:
    """The base model's tokenizer, with a padding token and without the faults that its family has a repair for.

    `newline` is what a newline is written as; None: see `with_newlines`. Raises UserError when it cannot be loaded.

    A tokenizer without a padding token pads with its end-of-text token: labels and attention are masked by
    position, so that costs nothing, and the vocabulary keeps its size.
    """
    if trust_remote_code and int(os.environ.get("RANK", 0)) == 0:
        warn([f"model.trust_remote_code: Python code that comes with {base} is run; read it, and pin model.revision"])
    with _loading("tokenizer", base, Exception):  # of files of the wrong kind, its libraries raise what they like
        tokenizer = AutoTokenizer.from_pretrained(base, **_source(revision, trust_remote_code))
    if not tokenizer("日本")["input_ids"]:  # what transformers makes of a repository without any tokenizer
        examples = ", ".join(f"{kind}: {family.tokenizer}" for kind, family in FAMILIES.items() if family.tokenizer)
        raise UserError(f"tokenizer {base}: has no vocabulary; set model.tokenizer to one that has ({examples})")
    tokenizer = with_newlines(repaired(tokenizer), newline)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base_config(base: str, revision: str | None = None, trust_remote_code: bool = False) -> PretrainedConfig:
    """The base model's architecture, without its weights: of a multi-modal model, that of its text model.

    Raises UserError when it cannot be loaded.
    """
    return text_config(_whole_config(base, revision, trust_remote_code))


def is_part_of_more(base: str, revision: str | None = None, trust_remote_code: bool = False) -> bool:
    """Whether it is the text model of a multi-modal one. Raises UserError when that cannot be loaded."""
    whole = _whole_config(base, revision, trust_remote_code)
    return text_config(whole) is not whole


def _whole_config(base: str, revision: str | None, trust_remote_code: bool) -> PretrainedConfig:
    with _loading("model", base, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return AutoConfig.from_pretrained(base, **_source(revision, trust_remote_code))


def load_base(
    base: str,
    device: torch.device | None,
    dtype: torch.dtype,
    quantization: Mapping[str, Any] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    attention: str = "auto",
    safetensors_only: bool = False,
) -> PreTrainedModel:
    """The frozen base model on `device`; `quantization` holds BitsAndBytesConfig's arguments, None means none.

    Without a device, what divides the weights among processes places them. `attention` names transformers'
    implementation of it, "auto" leaves the choice to transformers. A pickle of weights is read (as data, without
    running its code) unless `safetensors_only`. Raises UserError when the model is missing or cannot be loaded, or does
    not support that attention.
    """
    config = load_base_config(base, revision, trust_remote_code)
    if attention != "auto":
        check_attention(config, attention)
    family = FAMILIES.get(config.model_type)
    part = {"config": config, "key_mapping": TEXT_WEIGHTS} if family and family.part_of else {}
    with _loading("model", base, OSError, ValueError, ImportError, RuntimeError, SafetensorError, UnpicklingError):
        model, loaded = AutoModelForCausalLM.from_pretrained(
            base,
            output_loading_info=True,
            dtype=dtype,
            device_map={"": device} if device else None,
            quantization_config=BitsAndBytesConfig(**quantization) if quantization else None,
            attn_implementation=None if attention == "auto" else attention,
            use_safetensors=True if safetensors_only else None,
            **part,
            **_source(revision, trust_remote_code),
        )
    if missing := sorted(loaded["missing_keys"]):  # transformers would go on with random ones
        remedy = "the download is incomplete, or it is another model's configuration"
        raise UserError(f"model {base}: {len(missing)} weights are not in its files, such as {missing[0]}; {remedy}")
    if part:
        model._weight_conversions = None  # it would be saved under the names that its weights had in the whole model
    model.requires_grad_(False)
    if getattr(model, "is_loaded_in_8bit", False):
        from sft.model.int8 import forget_inputs  # bitsandbytes, which other models do without

        forget_inputs(model)
    # What the model's own files say about generation (a penalty, a temperature) must not mix with our settings.
    ids = {name: getattr(model.generation_config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**ids)
    if device and device.type == "cpu":
        # On CPUs with avx512_bf16, bitsandbytes repacks 4-bit weights at the first evaluation-mode forward, and the
        # next training forward then fails on a leaf that was changed in place.
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
        model.get_output_embeddings().register_forward_pre_hook(_dense)
    return model


def _dense(head: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    # The last position of prompts is a strided view, for which PyTorch would copy the head's weights once a row:
    # gigabytes, and most of the time that prompts take. A single row's view calls itself contiguous all the same.
    return (inputs[0].clone(memory_format=torch.contiguous_format),)


def load_skeleton(
    base: str,
    dtype: torch.dtype,
    revision: str | None = None,
    trust_remote_code: bool = False,
    attention: str = "auto",
) -> PreTrainedModel:
    """The frozen base model without weights (PyTorch's meta device), made from its configuration in a second or less.

    Of `attention` only "eager" makes a difference here. Raises UserError as `load_base` does.
    """
    config = load_base_config(base, revision, trust_remote_code)
    if attention != "auto":
        check_attention(config, attention)
    eager = "eager" if attention == "eager" else None
    with _loading("model", base, OSError, ValueError, ImportError), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=eager, trust_remote_code=trust_remote_code
        )
    return model.requires_grad_(False)


def _source(revision: str | None, trust_remote_code: bool) -> dict[str, Any]:
    return {"revision": revision, "trust_remote_code": trust_remote_code, "local_files_only": hub_is_absent()}


@contextlib.contextmanager
def _loading(what: str, base: str, *errors: type[Exception]) -> Iterator[None]:
    """What the libraries raise in loading becomes a UserError."""
    try:
        yield
    except errors as error:
        raise loading_error(what, base, error) from None
