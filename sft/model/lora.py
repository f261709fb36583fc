"""LoRA on a base model: added fresh, loaded, merged into the weights; or all weights made trainable."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from sft.model.adapter import lora_config, read_weights
from sft.model.families import default_targets
from sft.system.errors import UserError
from sft.system.texts import Count, Said, said


def train_all(model: PreTrainedModel) -> PreTrainedModel:
    """Make every weight of `model` trainable, in fp32."""
    return model.requires_grad_(True).float()


def base_of(model: PeftModel | PreTrainedModel) -> PreTrainedModel:
    """The base model below an adapter; a model without one is its own."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def add_lora(model: PreTrainedModel, lora: Mapping[str, Any], trained: Path | None = None) -> PeftModel:
    """Put an adapter on `model`, to be trained; `lora` holds LoraConfig's arguments. Trainable weights are fp32.

    It is a fresh one, or has the weights of the saved adapter `trained`. Without `target_modules` the architecture's
    usual ones are adapted. Raises UserError when those weights are damaged or do not fit, and when a target module is
    not part of the model, naming those that could be targets.
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
    compute_as_input(peft_model)
    if trained:
        _take_weights(peft_model, trained)
    return peft_model


def _take_weights(model: PeftModel, adapter: Path) -> None:
    weights = read_weights(adapter)
    fresh = get_peft_model_state_dict(model, save_embedding_layers=False)
    if {name: weight.shape for name, weight in weights.items()} != {name: w.shape for name, w in fresh.items()}:
        raise UserError(f"{adapter}: its weights are not those of a LoRA with these settings on this base model")
    set_peft_model_state_dict(model, weights)


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
            known = f"its linear layers are {', '.join(linear_names(model))}"
            raise UserError(f"lora.target_modules: {type(model).__name__} has no module {target!r}; {known}")


def linear_names(model: PreTrainedModel) -> list[str]:
    """Last name parts of the linear layers below the head, in model order, each once."""
    head = model.get_output_embeddings()
    linear = (name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and layer is not head)
    return list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in linear))


def recast_trainable(model: PeftModel | PreTrainedModel) -> None:
    """Keep trainable weights in fp32: updates at these learning rates vanish in 16 bits."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


class InputTypeLinear(nn.Linear):
    """A linear layer that computes in the type of its input, whatever the type of its weights."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(…, width in) → (…, width out), in the type of `states`."""
        bias = None if self.bias is None else self.bias.to(states.dtype)
        return linear(states, self.weight.to(states.dtype), bias)


def compute_as_input(model: PeftModel) -> None:
    """Let LoRA's two products have the type of their layer's input, and their weights stay fp32.

    PEFT casts the input to the weights' type and the sum back again, which takes most of LoRA's time and memory. Mixed
    precision computes like this everywhere, but would put norms and softmax into fp32. DoRA, which looks at weights
    and not only at products, stays as PEFT has it.
    """
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and isinstance(layer.get_base_layer(), nn.Linear) and not layer.lora_variant:
            layer.cast_input_dtype_enabled = False
            for products in (layer.lora_A, layer.lora_B):
                for product in products.values():
                    product.__class__ = InputTypeLinear


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
        counts = f"{len(saved - wanted)} of its weights have no place there and {len(wanted - saved)} are missing"
        raise UserError(f"{mismatch}: {counts} ({example}, …)")
    return peft_model


def describe_trained(model: PeftModel | PreTrainedModel) -> Said:
    """One line: how many modules carry an adapter, what they are called, how many weights are trained."""
    if not isinstance(model, PeftModel):
        return said("doctor.all_weights", weights=Count(model.num_parameters()))
    names = [name for name, module in model.named_modules() if hasattr(module, "lora_A") and module.lora_A]
    kinds = sorted({name.rsplit(".", 1)[-1] for name in names})
    trained, total = model.get_nb_trainable_parameters()
    values = {"modules": len(names), "kinds": ", ".join(kinds), "trained": Count(trained), "total": Count(total)}
    return said("doctor.lora", **values)


@torch.no_grad()
def merge(model: PeftModel) -> PreTrainedModel:
    """The base with the adapter added to its weights, in fp32 layer by layer and rounded once. `model` is used up.

    Raises UserError when a merged weight is not a finite number.
    """
    for name, layer in model.named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        weights = layer.get_base_layer()
        dtype = weights.weight.dtype
        weights.float()
        try:
            layer.merge(safe_merge=True)  # into new tensors: those of the base stay for whoever holds them
            finite = all(parameter.isfinite().all() for parameter in weights.to(dtype).parameters())
        except ValueError as error:
            if "NaN" not in str(error):
                raise
            finite = False
        if not finite:
            raise UserError(
                f"merging {name}: a weight is not a finite number; the adapter is damaged, or model.dtype too narrow"
            )
    return model.unload()
