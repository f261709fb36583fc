"""The base model and its tokenizer, loaded for one device in 4-bit, 8-bit or unquantised, and LoRA on top."""

import os
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
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

from sft.adapter import lora_config, read_weights
from sft.families import FAMILIES, check_attention, default_targets
from sft.hazards import warn
from sft.repair import repaired
from sft.system.errors import UserError
from sft.system.hub import hub_is_absent, loading_error

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def resolve_device(device: str) -> torch.device:
    """The device of this process: `auto` is the GPU where there is one. Raises UserError for a missing GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "model.device is cuda, but PyTorch sees no GPU here; "
            "run on a machine with one, or try model.device=cpu with a small model"
        )
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The dtype of unquantised weights and of arithmetic: `auto` is bf16, or fp16 on a GPU without bf16."""
    if dtype == "float16" and device.type == "cpu":
        raise UserError("model.dtype: float16 needs a GPU; use bfloat16 or float32 on a CPU")
    if dtype != "auto":
        return DTYPES[dtype]
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def use_all_cores() -> None:
    """Give this process its share of the cores: `accelerate launch` leaves each CPU process a single thread."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def load_tokenizer(
    base: str, revision: str | None = None, trust_remote_code: bool = False, newline: str | None = None
) -> PreTrainedTokenizerBase:
    """The base model's tokenizer, with a padding token and without the faults that `repaired` mends.

    `newline` is what a newline is written as; None: see `repaired`. Raises UserError when it cannot be loaded.

    A tokenizer without a padding token pads with its end-of-text token: labels and attention are masked by
    position, so that costs nothing, and the vocabulary keeps its size.
    """
    if trust_remote_code and int(os.environ.get("RANK", 0)) == 0:
        warn([f"model.trust_remote_code: Python code that comes with {base} is run; read it, and pin model.revision"])
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            base, revision=revision, trust_remote_code=trust_remote_code, local_files_only=hub_is_absent()
        )
    except Exception as error:  # of files of the wrong kind, its libraries raise what they like
        raise loading_error("tokenizer", base, error) from None
    if not tokenizer("日本")["input_ids"]:  # what transformers makes of a repository without any tokenizer
        examples = ", ".join(f"{kind}: {family.tokenizer}" for kind, family in FAMILIES.items() if family.tokenizer)
        raise UserError(f"tokenizer {base}: has no vocabulary; set model.tokenizer to one that has ({examples})")
    tokenizer = repaired(tokenizer, newline)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base_config(base: str, revision: str | None = None, trust_remote_code: bool = False) -> PretrainedConfig:
    """The base model's architecture, without its weights. Raises UserError when it cannot be loaded."""
    try:
        return AutoConfig.from_pretrained(
            base, revision=revision, trust_remote_code=trust_remote_code, local_files_only=hub_is_absent()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise loading_error("model", base, error) from None


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
    if attention != "auto":
        check_attention(load_base_config(base, revision, trust_remote_code), attention)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base,
            revision=revision,
            dtype=dtype,
            device_map={"": device} if device else None,
            quantization_config=BitsAndBytesConfig(**quantization) if quantization else None,
            attn_implementation=None if attention == "auto" else attention,
            trust_remote_code=trust_remote_code,
            use_safetensors=True if safetensors_only else None,
            local_files_only=hub_is_absent(),
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise loading_error("model", base, error) from None
    model.requires_grad_(False)
    # What the model's own files say about generation (a penalty, a temperature) must not mix with our settings.
    theirs = model.generation_config
    model.generation_config = GenerationConfig(
        bos_token_id=theirs.bos_token_id, eos_token_id=theirs.eos_token_id, pad_token_id=theirs.pad_token_id
    )
    if device and device.type == "cpu":
        _keep_4bit_weights_trainable(model)
        model.get_output_embeddings().register_forward_pre_hook(_dense)
    return model


def _dense(head: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    # The last position of prompts is a strided view, for which PyTorch would copy the head's weights once a row:
    # gigabytes, and most of the time that prompts take. A single row's view calls itself contiguous all the same.
    return (inputs[0].clone(memory_format=torch.contiguous_format),)


def train_all(model: PreTrainedModel) -> PreTrainedModel:
    """Make every weight of `model` trainable, in fp32."""
    return model.requires_grad_(True).float()


def base_of(model: PeftModel | PreTrainedModel) -> PreTrainedModel:
    """The base model below an adapter; a model without one is its own."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


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
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, dtype=dtype, attn_implementation=eager, trust_remote_code=trust_remote_code
            )
    except (OSError, ValueError, ImportError) as error:
        raise loading_error("model", base, error) from None
    return model.requires_grad_(False)


def add_lora(model: PreTrainedModel, lora: Mapping[str, Any]) -> PeftModel:
    """Put a fresh adapter on `model`; `lora` holds LoraConfig's arguments. Trainable weights are fp32.

    Without `target_modules` the architecture's usual ones are adapted. Raises UserError when a target module is not
    part of the model, naming those that could be targets.
    """
    if lora.get("use_dora") and getattr(model, "is_loaded_in_8bit", False) and model.device.type == "cpu":
        raise UserError(
            "lora.use_dora: bitsandbytes loses the scales of 8-bit weights under it on a CPU; use 4-bit or unquantised"
        )
    targets = lora.get("target_modules") or default_targets(model)
    check_targets(model, targets)
    try:
        peft_model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **{**lora, "target_modules": targets}))
    except ValueError as error:
        candidates = ", ".join(linear_names(model))
        raise UserError(f"lora: {error} (linear layers of this model: {candidates})") from None
    recast_trainable(peft_model)
    return peft_model


def check_targets(model: PreTrainedModel, targets: list[str] | str | None) -> None:
    """Raise UserError when one of the target modules matches nothing in the model."""
    names = [name for name, _ in model.named_modules()]
    if targets is None or targets == "all-linear":
        return
    for target in [targets] if isinstance(targets, str) else targets:
        pattern = target if isinstance(targets, str) else rf"(.*\.)?{re.escape(target)}"
        try:
            matches = any(re.fullmatch(pattern, name) for name in names)
        except re.error as error:
            raise UserError(f"lora.target_modules: {target!r} is not a regular expression: {error}") from None
        if not matches:
            raise UserError(
                f"lora.target_modules: {type(model).__name__} has no module {target!r}; "
                f"its linear layers are {', '.join(linear_names(model))}"
            )


def linear_names(model: PreTrainedModel) -> list[str]:
    """Last name parts of the linear layers below the head, in model order, each once."""
    head = model.get_output_embeddings()
    return list(
        dict.fromkeys(
            name.rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        )
    )


def recast_trainable(model: PeftModel | PreTrainedModel) -> None:
    """Keep trainable weights in fp32: updates at these learning rates vanish in 16 bits."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def load_adapter(model: PreTrainedModel, adapter: Path) -> PeftModel:
    """Put a trained adapter on its base for answering. Raises UserError when it is missing, damaged or does not fit."""
    weights = read_weights(adapter)
    config = lora_config(adapter, weights, model)
    mismatch = (
        f"{adapter}: this adapter, trained on {config.base_model_name_or_path}, does not fit the base model "
        f"{model.name_or_path}"
    )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # an error below
            peft_model = PeftModel.from_pretrained(model, str(adapter), config=config)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{mismatch} ({' '.join(str(error).split())[:200]})") from None
    saved = set(weights)
    wanted = set(get_peft_model_state_dict(peft_model, save_embedding_layers=False))
    if saved != wanted:
        example = sorted(saved ^ wanted)[0]
        raise UserError(
            f"{mismatch}: {len(saved - wanted)} of its weights have no place there and {len(wanted - saved)} are "
            f"missing ({example}, …)"
        )
    return peft_model


def describe_trained(model: PeftModel | PreTrainedModel) -> str:
    """One line: how many modules carry an adapter, what they are called, how many weights are trained."""
    if not isinstance(model, PeftModel):
        return f"no adapter: all {model.num_parameters():,} weights are trained"
    names = [name for name, module in model.named_modules() if hasattr(module, "lora_A") and module.lora_A]
    kinds = sorted({name.rsplit(".", 1)[-1] for name in names})
    trained, total = model.get_nb_trainable_parameters()
    return f"LoRA on {len(names)} modules ({', '.join(kinds)}): {trained:,} of {total:,} weights are trained"


def _keep_4bit_weights_trainable(model: PreTrainedModel) -> None:
    # On CPUs with avx512_bf16, bitsandbytes repacks 4-bit weights at the first evaluation-mode forward, and the
    # next training forward then fails on a leaf that was changed in place.
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
