"""Numbers out of range, and sections that contradict each other or themselves."""

import re
from collections.abc import Callable
from typing import Any

from sft.config.library_keys import MODULE_NAME
from sft.config.origin import Origin
from sft.config.sections import Config

_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lora.r": (lambda value: value >= 1, "at least 1"),
    "lora.lora_alpha": (lambda value: value > 0, "above 0"),
    "lora.lora_dropout": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    "lora.init_lora_weights": (
        lambda value: value in (True, False, "gaussian"),
        "true, false or gaussian (the others change the base's weights, which no adapter holds)",
    ),
    "lora.bias": (lambda value: value == "none", "none (biases are the base's, and answers of the base would change)"),
    "training.max_length": (lambda value: value >= 16, "at least 16"),
    "training.per_device_train_batch_size": (lambda value: value >= 1, "at least 1"),
    "training.per_device_eval_batch_size": (lambda value: value >= 1, "at least 1"),
    "training.num_train_epochs": (lambda value: value > 0, "above 0"),
    "training.learning_rate": (lambda value: value > 0, "above 0"),
    "training.warmup_steps": (lambda value: value >= 0, "at least 0"),
    "training.save_steps": (lambda value: value > 0, "above 0"),
    "training.save_strategy": (lambda value: value != "best", "steps, epoch or no"),
    "training.logging_steps": (lambda value: value > 0, "above 0"),
    "generation.max_new_tokens": (lambda value: value >= 1, "at least 1"),
    "generation.temperature": (lambda value: value >= 0, "at least 0 (0 answers greedily)"),
    "generation.top_p": (lambda value: 0 < value <= 1, "above 0 and at most 1 (1 keeps every token)"),
    "generation.top_k": (lambda value: value >= 0, "at least 0 (0 keeps every token)"),
    "generation.repetition_penalty": (lambda value: value > 0, "above 0 (1 is no penalty)"),
}
"""What the libraries would refuse later, or not at all."""


def check_values(config: Config, origin: Origin) -> None:
    """Refuse numbers out of range and sections that contradict each other or themselves."""
    for key, (fits, words) in _RANGES.items():
        section, name = key.split(".")
        values = getattr(config, section) or {}
        if name in values and (values[name] is None or not fits(values[name])):
            raise origin.error(key, f"must be {words}, got {'null' if values[name] is None else values[name]}")
    for name in ("exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern"):
        names = (config.lora or {}).get(name) or []
        if not all(re.match(MODULE_NAME, str(part)) for part in ([names] if isinstance(names, str) else names)):
            raise origin.error(f"lora.{name}", "takes names of modules; a regular expression would not be loaded again")
    validation, test = config.data.validation_share, config.data.test_share
    if validation + test >= 1:
        message = f"{test:g} with data.validation_share {validation:g} leaves nothing to train on"
        raise origin.error("data.test_share", message, "data.validation_share")
    if config.model.device == "cpu" and config.model.dtype == "float16":
        raise origin.error(
            "model.dtype", "float16 needs a GPU; use bfloat16 or float32 with model.device cpu", "model.device"
        )
    if config.quantization is not None and config.lora is None:
        raise origin.error("lora", "null trains all weights, which quantised ones cannot be; set quantization: null")
    if config.quantization is not None:
        bits = [key for key in ("load_in_4bit", "load_in_8bit") if config.quantization.get(key)]
        if len(bits) == 2:
            raise origin.error(
                "quantization.load_in_4bit", "contradicts load_in_8bit; set one of the two", "quantization.load_in_8bit"
            )
        if not bits:
            raise origin.error(
                "quantization", "neither load_in_4bit nor load_in_8bit is true; quantization: null turns it off"
            )
