"""Sections that contradict each other or themselves."""

from typing import Any

from sft.config.origin import Origin
from sft.config.sections import Config, DataSection


def check_values(config: Config, origin: Origin) -> None:
    """Raise UserError for sections that contradict each other or themselves."""
    check_data(config.data, origin)
    if config.model.device == "cpu" and config.model.dtype == "float16":
        message = "float16 needs a GPU; use bfloat16 or float32 with model.device cpu"
        raise origin.error("model.dtype", message, "model.device")
    if config.eval.columns is not None and config.eval.data is None:
        raise origin.error(
            "eval.columns", "names columns of eval.data, which is null; those of the run are in data.columns"
        )
    _check_keep_best(config.training, origin)
    _check_varlen(config, origin)
    if config.quantization is None:
        return
    if config.lora is None:
        raise origin.error("lora", "null trains all weights, which quantised ones cannot be; set quantization: null")
    bits = [key for key in ("load_in_4bit", "load_in_8bit") if config.quantization.get(key)]
    if len(bits) == 2:
        message = "contradicts load_in_8bit; set one of the two"
        raise origin.error("quantization.load_in_4bit", message, "quantization.load_in_8bit")
    if not bits:
        message = "neither load_in_4bit nor load_in_8bit is true; quantization: null turns it off"
        raise origin.error("quantization", message)


def check_data(section: DataSection, origin: Origin) -> None:
    """Raise UserError for a section `data` that contradicts itself."""
    validation, test = section.shares
    if validation + test >= 1:
        message = f"{test:g} with data.validation_share {validation:g} leaves nothing to train on"
        raise origin.error("data.test_share", message, "data.validation_share")
    trained = {source.path for source in section.sources if not source.side}
    for source in section.sources:
        if source.side and source.path in trained:
            message = f"{source.path} is in data.path, too, and none of its rows could train; take it out of one"
            raise origin.error(f"data.{source.side}", message, "data.path")
        if source.side and source.weight != 1:
            raise origin.error(f"data.{source.side}", f"{source.path} has a weight, and only rows that train have one")


def _check_keep_best(training: dict[str, Any], origin: Origin) -> None:
    if training.get("patience") and not training.get("keep_best"):
        message = "waits for a better validation, and nothing says by whose loss; set training.keep_best=overall"
        raise origin.error("training.patience", message, "training.keep_best")
    if training.get("keep_best") and training["eval_strategy"] == "no":
        message = "needs validations, and training.eval_strategy is no; set it to epoch or steps"
        raise origin.error("training.keep_best", message, "training.eval_strategy")


def _check_varlen(config: Config, origin: Origin) -> None:
    """PyTorch's kernel is called outside of autocast: it must get its bfloat16 from the model itself."""
    if config.training["packed_attention"] != "varlen" or config.training["pack"] is False:
        return
    key, remedy = "training.packed_attention", "use documents or dense"
    if config.model.device == "cpu":
        raise origin.error(key, f"varlen needs a GPU; {remedy} with model.device cpu", "model.device")
    if config.model.dtype in ("float16", "float32"):
        message = f"varlen computes in bfloat16 only; {remedy} with model.dtype {config.model.dtype}"
        raise origin.error(key, message, "model.dtype")
    if config.lora is None:
        raise origin.error(
            key, f"varlen needs weights in bfloat16, and all that are trained are fp32; {remedy}", "lora"
        )
