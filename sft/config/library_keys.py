"""Keys and types of the library classes behind the YAML sections, checked without importing the libraries.

`library_keys.json` holds the type of every key as a Python expression. `python -m sft.library_keys` writes it anew
from the installed libraries; a test compares the two.
"""

import dataclasses
import enum
import functools
import inspect
import json
import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Field

TABLE = Path(__file__).with_suffix(".json")

LIBRARY_CLASSES = {
    "quantization": "transformers.BitsAndBytesConfig",
    "lora": "peft.LoraConfig",
    "training": "trl.SFTConfig",
    "generation": "transformers.GenerationConfig",
}
"""Sections whose keys are a library class's, and that class."""

_REFUSED_BY_REASON = {
    "quantization": {"the model stays on one device, see model.device": "llm_int8_enable_fp32_cpu_offload"},
    "lora": {
        "use model.base": "base_model_name_or_path",
        "only adapter weights are trained and saved; remove it": "modules_to_save trainable_token_indices",
        "only plain LoRA, rsLoRA and DoRA are trained and loaded; remove it": (
            "layer_replication target_parameters loftq_config eva_config corda_config lora_ga_config velora_config "
            "monteclora_config kasa_config use_qalora qalora_group_size use_bdlora arrow_config "
            "alora_invocation_tokens megatron_config megatron_core ensure_weight_tying"
        ),
        "use model.revision": "revision",
        "the pipeline sets it; remove it": (
            "task_type inference_mode peft_type auto_mapping peft_version runtime_config"
        ),
    },
    "training": {
        "use training.total_batch_size, micro-batches follow from it": "gradient_accumulation_steps",
        "use training.per_device_train_batch_size": "auto_find_batch_size per_gpu_train_batch_size",
        "use training.per_device_eval_batch_size": "per_gpu_eval_batch_size",
        "use training.train_on_inputs": "completion_only_loss assistant_only_loss",
        "the pipeline computes the loss itself, see training.train_on_inputs": (
            "loss_type label_smoothing_factor use_liger_kernel liger_kernel_config"
        ),
        "the pipeline lays out the batches itself, use training.pack": (
            "packing packing_strategy padding_free eval_packing pad_to_multiple_of"
        ),
        "tokens are counted already, see log.jsonl; remove it": "include_num_input_tokens_seen",
        "use run.directory": "output_dir",
        "use section model": "model_init_kwargs",
        "use model.dtype": "bf16 fp16 bf16_full_eval fp16_full_eval",
        "use model.device": "use_cpu no_cuda",
        "use model.trust_remote_code": "trust_remote_code",
        "use prompt.template": "dataset_text_field chat_template_path",
        "use data.truncation": "truncation_mode",
        "the pipeline prepares the data, see section data": (
            "dataset_kwargs dataset_num_proc remove_unused_columns label_names length_column_name"
        ),
        "rows are shuffled every epoch, by training.seed": "shuffle_dataset data_seed",
        "rows of a step are sorted by length already; remove it": "train_sampling_strategy group_by_length",
        "use training.num_train_epochs, or data.train_rows": "max_steps",
        "the last step of an epoch is smaller, no row is left out; remove it": "dataloader_drop_last",
        "the loss is a mean over all processes' tokens; remove it": "average_tokens_across_devices",
        "the tokenizer's own token is used; remove it": "eos_token pad_token",
        "training stops at the first non-finite loss; remove it": "logging_nan_inf_filter",
        "the pipeline sets it; remove it": "use_cache dataloader_pin_memory",
        "train_sft.py trains and python -m eval evaluates; remove it": "do_train do_eval do_predict",
        "use train_sft.py's option --resume": "resume_from_checkpoint",
        "a run is what it is at the end, and validation loss is not how well it answers: lower num_train_epochs": (
            "load_best_model_at_end metric_for_best_model greater_is_better"
        ),
        "--resume needs optimizer, random state and data position; remove it": (
            "ignore_data_skip save_only_model enable_jit_checkpoint"
        ),
        "set it in accelerate's configuration file (accelerate launch --config_file)": (
            "local_rank fsdp fsdp_config deepspeed accelerator_config parallelism_config"
        ),
        "runs stay local, share a finished one with python -m sft.export RUN --push": (
            "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision"
        ),
        # Names that the pinned libraries dropped or are dropping, still found in older configurations.
        "its new name is training.activation_checkpointing": "gradient_checkpointing",
        "its new name is training.activation_checkpointing_kwargs": "gradient_checkpointing_kwargs",
        "use training.warmup_steps, below 1 it is a share of all steps": "warmup_ratio",
        "its new name is training.max_length": "max_seq_length",
        "its new name is training.eval_strategy": "evaluation_strategy",
    },
    "generation": {
        "use generation.temperature, 0 answers greedily": "do_sample",
        "use generation.max_new_tokens": "max_length",
        "use generation.min_new_tokens": "min_length",
        "answers end with the end-of-text token or after generation.max_new_tokens": (
            "eos_token_id forced_eos_token_id stop_strings"
        ),
        "taken from the tokenizer; remove it": "pad_token_id bos_token_id decoder_start_token_id forced_bos_token_id",
        "every question gets one answer, as text; remove it": (
            "num_return_sequences return_dict_in_generate output_attentions output_hidden_states output_scores "
            "output_logits"
        ),
        "assisted generation is not supported; remove it": (
            "is_assistant num_assistant_tokens num_assistant_tokens_schedule assistant_confidence_threshold "
            "assistant_early_exit assistant_lookbehind target_lookbehind assistant_ensemble_weight speculation_type "
            "prompt_lookup_num_tokens max_matching_ngram_size use_mtp"
        ),
        "use eval.batch_tokens": "continuous_batching_config",
        "dropped by transformers; remove it": (
            "low_memory penalty_alpha dola_layers diversity_penalty num_beam_groups constraints force_words_ids "
            "prefill_chunk_size"
        ),
        "written by transformers; remove it": "transformers_version _from_model_config",
    },
}

REFUSED: dict[str, dict[str, str]] = {
    section: {key: reason for reason, keys in reasons.items() for key in keys.split()}
    for section, reasons in _REFUSED_BY_REASON.items()
}
"""Keys that the pipeline owns or the pinned libraries dropped, with what to use instead."""

MODULE_NAME = r"^[\w.]+$"
"""What keys of a saved adapter have to be that PEFT would read as regular expressions."""

_CHOICES = {
    # The signature has no types; a wrong name would surface only after the weights have been read.
    "bnb_4bit_quant_type": "Literal['fp4', 'nf4']",
    "bnb_4bit_compute_dtype": "Literal['float16', 'bfloat16', 'float32'] | None",
    "bnb_4bit_quant_storage": "Literal['float16', 'float32', 'int8', 'uint8', 'float64', 'bfloat16'] | None",
}


_TYPES = {
    "Any": Any, "Literal": Literal, "bool": bool, "str": str, "list": list, "dict": dict,
    # What no key's own range is narrower than.
    "int": Annotated[int, Field(ge=0, lt=2**31)], "float": Annotated[float, Field(ge=0, le=1e9)],
}  # fmt: skip


@functools.cache
def key_types(section: str) -> dict[str, Any]:
    """Key → type of the library class behind `section`, without what the pipeline refuses; {} for its own sections."""
    table = json.loads(TABLE.read_text(encoding="utf-8")).get(section, {})
    return {
        key: eval(expression, {"__builtins__": {}}, _TYPES)
        for key, expression in table.items()
        if key not in REFUSED[section]
    }


def library_table() -> dict[str, dict[str, str]]:
    """The table as the installed libraries give it. Imports them, which takes seconds."""
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig, GenerationConfig
    from trl import SFTConfig

    documented = _documented_types(BitsAndBytesConfig)
    parameters = list(inspect.signature(BitsAndBytesConfig).parameters.values())
    named = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    optional = {p.name: " | None" if p.default is None else "" for p in named}
    generation = _documented_types(GenerationConfig)
    return {
        "quantization": {n: _CHOICES.get(n, documented.get(n, "Any") + optional[n]) for n in optional},
        "lora": _field_types(LoraConfig),
        "training": _field_types(SFTConfig),
        "generation": {n: f"{generation[n]} | None" if n in generation else "Any" for n in vars(GenerationConfig())},
    }


def _field_types(cls: Any) -> dict[str, str]:
    hints = typing.get_type_hints(cls)
    return {field.name: _expression(hints[field.name]) for field in dataclasses.fields(cls) if field.init}


def _expression(kind: Any) -> str:
    """A dataclass annotation as the expression of a type that YAML can hold; "Any" where none is known."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is type(None):
        return "None"
    if origin in (Union, types.UnionType):
        # Next to an enumeration, `str` only means that its values may be written as text.
        is_enum = any(isinstance(a, type) and issubclass(a, enum.Enum) for a in arguments)
        parts = [_expression(a) for a in arguments if not (is_enum and a is str)]
        # Python hands a union back in the order of its first use anywhere, so the order here is our own.
        return (
            "Any"
            if "Any" in parts
            else " | ".join(sorted(set(parts), key=lambda part: (part == "None", "[" in part, part)))
        )
    if origin is Literal:
        # peft spells a family of names as 'pissa_niter_[number of iters]'.
        return "str" if any("[" in str(a) for a in arguments) else f"Literal{list(arguments)!r}"
    if origin in (list, dict):
        return f"{origin.__name__}[{', '.join(map(_expression, arguments))}]"
    if origin is tuple:
        return f"list[{' | '.join(dict.fromkeys(map(_expression, arguments)))}]"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return f"Literal{[member.value for member in kind]!r}"
    if dataclasses.is_dataclass(kind):
        return "dict"  # the libraries build their nested configurations from mappings
    return kind.__name__ if kind in (bool, int, float, str, list, dict) else "Any"


def _documented_types(cls: Any) -> dict[str, str]:
    """Types from the lines "name (`type`, *optional*):" of a docstring, where they are plain ones."""
    found: dict[str, str] = {}
    for name, text in re.findall(r"^ +(\w+):? *\((.+)\):$", inspect.getdoc(cls) or "", flags=re.MULTILINE):
        expression = text.split(", *optional*")[0].replace("`", "").replace(" or ", " | ")
        if re.fullmatch(r"(bool|int|float|str|list\[|[\]| ])+", expression):
            found[name] = expression
    return found


if __name__ == "__main__":
    TABLE.write_text(json.dumps(library_table(), indent=1) + "\n", encoding="utf-8")
