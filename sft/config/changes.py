"""What of a configuration decides what is learned, and what another one would train differently."""

import json
from typing import Any

from sft.config.sections import SECTIONS, Config
from sft.prompt.template import as_named

LEARNED_FROM = ("model", "data", "prompt", "quantization", "lora", "training")
"""The sections that decide it."""
HARMLESS = {
    "model.build", "training.logging_steps", "training.save_strategy", "training.save_steps",
    "training.save_total_limit", "training.eval_strategy", "training.eval_steps", "training.report_to",
    "training.per_device_eval_batch_size", "training.disable_tqdm", "training.run_name", "training.samples",
    "training.keep_best", "training.patience",
}  # fmt: skip
"""Keys that a resumed run may change: they decide what is written and kept, not what a step learns."""

Settings = dict[str, dict[str, Any] | None]
"""Section → its keys that are set, as YAML has them; None: the section is null."""


def learning_settings(config: Config) -> Settings:
    """The settings that decide what is learned. A template that is written out and has a name goes by it."""
    dumped = config.model_dump(mode="json", include=set(LEARNED_FROM))
    dumped["prompt"]["template"] = as_named(dumped["prompt"]["template"])
    return {section: _set(section, dumped[section]) for section in LEARNED_FROM}


def _set(section: str, keys: dict[str, Any] | None) -> dict[str, Any] | None:
    if keys is None:
        return None
    return {key: value for key, value in keys.items() if value is not None and f"{section}.{key}" not in HARMLESS}


def changes(old: Settings, new: Settings) -> list[str]:
    """What differs: "training.learning_rate was 0.0003, is 0.001" for each such key.

    A key that one of them does not have is at its default; a section is null in one and not in the other as a whole.
    """
    found = []
    for section in sorted(old.keys() | new.keys(), key=LEARNED_FROM.index):
        was, now = old.get(section), new.get(section)
        if was is None or now is None:
            found += [_change(section, was, now)] if was != now else []
            continue
        fields = SECTIONS[section].model_fields
        for key in sorted(was.keys() | now.keys()):
            default = fields[key].get_default(call_default_factory=True) if key in fields else None
            before, after = was.get(key, default), now.get(key, default)
            found += [_change(f"{section}.{key}", before, after)] if before != after else []
    return found


def _change(key: str, was: Any, now: Any) -> str:
    return f"{key} was {json.dumps(was, ensure_ascii=False)}, is {json.dumps(now, ensure_ascii=False)}"


def training_changes(old: Config, new: Config) -> list[str]:
    """What `new` would train differently than `old`, as `changes` says it."""
    return changes(learning_settings(old), learning_settings(new))
