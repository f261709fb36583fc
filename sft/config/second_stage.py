"""`model.adapter`: a training that goes on from a finished run's adapter has that run's LoRA settings."""

import json
from pathlib import Path
from typing import Any

from sft.config.origin import Origin
from sft.config.sections import Config

FREE = {"lora_dropout"}
"""Settings of LoRA that each training may have its own of: they leave no trace in an adapter."""


def with_parents_lora(config: Config, parent: Config, given: dict[str, Any] | None, origin: Origin) -> Config:
    """`config` with the LoRA settings of `parent`, the configuration of the run that `model.adapter` names.

    `given` is section `lora` as it was written. Raises UserError where it contradicts the parent's, and where there is
    no adapter to go on from.
    """
    run = config.model.adapter
    assert run is not None
    if parent.lora is None:
        raise origin.error(
            "model.adapter", f"{run}: has no adapter, all weights were trained; use model.base={run}/model"
        )
    if config.lora is None:
        raise origin.error("lora", f"null trains all weights, and {run} has an adapter; take one of the two out")
    if config.run_directory.resolve() == Path(run).resolve():
        raise origin.error("model.adapter", f"{run} is where this training would write; set run.directory to another")
    for key in given or {}:
        mine, theirs = config.lora[key], parent.lora.get(key)
        if key not in FREE and (mine or None) != (theirs or None):
            has = json.dumps(theirs)
            message = f"is {json.dumps(mine)}, and the adapter of {run} has {has}; take it out, or set lora.{key}={has}"
            raise origin.error(f"lora.{key}", message)
    free = {key: config.lora[key] for key in FREE if key in (given or {})}
    return config.model_copy(update={"lora": parent.lora | free})
