"""What of a configuration decides what is learned, and what another one would train differently."""

import json
from collections.abc import Mapping
from typing import Any

from sft.config.sections import SECTIONS, Config

LEARNED_FROM = ("model", "data", "prompt", "quantization", "lora", "training")
"""The sections that decide it."""
HARMLESS = {
    "model.build", "training.logging_steps", "training.save_strategy", "training.save_steps",
    "training.save_total_limit", "training.eval_strategy", "training.eval_steps", "training.report_to",
    "training.per_device_eval_batch_size", "training.disable_tqdm", "training.run_name", "training.samples",
    "training.keep_best", "training.patience",
}  # fmt: skip
"""Keys that a resumed run may change: they decide what is written and kept, not what a step learns."""

Settings = dict[str, dict[str, Any]]
"""Section → its keys that are set, as YAML has them."""


def learning_settings(config: Config) -> Settings:
    """The settings that decide what is learned."""
    dumped = config.model_dump(mode="json", include=set(LEARNED_FROM))
    return {
        section: {
            key: value
            for key, value in (dumped[section] or {}).items()
            if value is not None and f"{section}.{key}" not in HARMLESS
        }
        for section in LEARNED_FROM
    }


def changes(old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What differs in the sections of `old`: "training.learning_rate was 0.0003, is 0.001" for each such key.

    A key that one of them does not have is at its default.
    """
    found = []
    for section, settings in old.items():
        fields = SECTIONS[section].model_fields
        for key in sorted(settings.keys() | new[section].keys()):
            default = fields[key].get_default(call_default_factory=True) if key in fields else None
            was, now = (each.get(key, default) for each in (settings, new[section]))
            if was != now:
                was, now = (json.dumps(each, ensure_ascii=False) for each in (was, now))
                found.append(f"{section}.{key} was {was}, is {now}")
    return found


def training_changes(old: Config, new: Config) -> list[str]:
    """What `new` would train differently than `old`, as `changes` says it."""
    return changes(learning_settings(old), learning_settings(new))
