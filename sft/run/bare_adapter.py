"""An adapter without a run, as stock PEFT and TRL save one: it stands where a finished run stands. No torch here.

What nobody recorded comes from the command line (base model, prompt template) and the defaults.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sft.config.load import config_of
from sft.config.sections import Config
from sft.prompt.template import CHAT_TEMPLATES, FILE_NAME, TEMPLATES, PromptTemplate
from sft.system.errors import UserError
from sft.system.files import read_json

CONFIG_FILE = "adapter_config.json"

OF_THE_TRAINING: dict[str, dict[str, Any]] = {"data": {"path": "unknown"}, "training": {"total_batch_size": 1}}
"""What a configuration must have, and only a training reads."""


def is_bare_adapter(directory: Path) -> bool:
    """Whether an adapter is in `directory` itself, and no run around it."""
    return (directory / CONFIG_FILE).is_file() and not (directory / "manifest.json").exists()


def bare_config(directory: Path, overrides: Sequence[str]) -> Config:
    """The configuration that a bare adapter is used with: defaults, the template beside it, and `overrides`.

    Raises UserError, one line for all of it, where they lack the base model, or a template that is not beside it.
    """
    changed = {word.partition("=")[0] for word in overrides}
    recorded = PromptTemplate.load(directory) if (directory / FILE_NAME).exists() else None
    missing = []
    if not changed & {"model", "model.base"}:
        missing.append(f"model.base=… (trained on {named_base(directory) or 'a model that it does not name'})")
    if not recorded and not changed & {"prompt", "prompt.template"}:
        names = ", ".join((*TEMPLATES, *CHAT_TEMPLATES))
        missing.append(f"prompt.template=… ({names}, or both texts of another)")
    if missing:
        raise UserError(f"{directory}: is an adapter without its run; say {' and '.join(missing)}")
    values = {**OF_THE_TRAINING, "run": {"directory": str(directory)}}
    if recorded:
        values["prompt"] = {"template": _as_configured(recorded)}
    config = config_of(values, directory, overrides, to_train=False).with_absolute_paths()
    if config.lora is None:
        raise UserError("command line: lora: null is for runs that trained all weights, and this is an adapter")
    return config


def named_base(directory: Path) -> str | None:
    """What an adapter says that it was trained on; anybody may have written it, and nothing is loaded by it."""
    values = read_json(directory / CONFIG_FILE)
    base = values.get("base_model_name_or_path") if isinstance(values, dict) else None
    return base[:200] if isinstance(base, str) else None


def _as_configured(template: PromptTemplate) -> Any:
    if template.name in CHAT_TEMPLATES or TEMPLATES.get(template.name) == template:
        return template.name
    return {"with_input": template.with_input, "without_input": template.without_input}
