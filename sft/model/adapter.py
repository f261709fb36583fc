"""A saved adapter, which may come from elsewhere: what of its files is believed, before PEFT builds anything from them.

The weights are safetensors, never a pickle. Of `adapter_config.json` only what a plain LoRA needs is read, and a new
`LoraConfig` is made of that, so that no other key reaches PEFT.
"""

import shlex
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import regex
import torch
from peft import LoraConfig
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file
from torch import nn

from sft.config.library.keys import MODULE_NAME
from sft.system.errors import UserError
from sft.system.files import check_inside, read_json

ADAPTER_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
PICKLES = ("adapter_model.bin", "pytorch_model.bin")
CONVERSION = (
    "python -c 'import sys, torch; from safetensors.torch import save_file; read = torch.load(sys.argv[1], "
    'map_location="cpu", weights_only=True); '
    "save_file({name: tensor.clone().contiguous() for name, tensor in read.items()}, sys.argv[2])'"
)
"""A pickle of weights, and the safetensors file to make of it, come behind it."""
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
PATTERN_SECONDS = 1.0
"""Time that a regular expression of an adapter may take over all names; a malicious one takes forever."""

Name = Annotated[str, Field(pattern=MODULE_NAME)]
Rank = Annotated[int, Field(ge=1)]
Alpha = Annotated[float, Field(gt=0)]


class AdapterConfig(BaseModel):
    """The keys of `adapter_config.json` that say which LoRA it is.

    Any other has to have LoraConfig's default; one that this PEFT does not know has to be null, false or empty.
    """

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    peft_type: Literal["LORA"]
    task_type: Literal["CAUSAL_LM"] | None = None
    base_model_name_or_path: str | None
    r: Rank
    lora_alpha: Alpha
    target_modules: str | list[Name]
    exclude_modules: Name | list[Name] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: Name | list[Name] | None = None
    rank_pattern: dict[Name, Rank] = {}
    alpha_pattern: dict[Name, Alpha] = {}
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Of a training that goes on from here; answers do not depend on it."""
    fan_in_fan_out: bool = False


WITHOUT_EFFECT = {"inference_mode", "peft_version", "revision"}
"""Keys that answers do not depend on, and that nothing is done with."""
STARTS = (True, False, "gaussian", "orthogonal", "eva", "mica")
"""Values of `init_lora_weights` that leave the base as it is. Others (PiSSA, OLoRA, CorDA) take its weights apart,
and their adapter is one for what is left of them."""


def read_weights(adapter: Path) -> dict[str, torch.Tensor]:
    """The weights of a saved adapter by name. Raises UserError when they are missing, empty, damaged or all zero."""
    path = adapter / ADAPTER_FILE
    if not path.is_file():
        pickles = [name for name in PICKLES if (adapter / name).exists()]
        if pickles:
            pickle = adapter / pickles[0]
            raise UserError(
                f"{pickle}: is a pickle, which could run code, and never loaded; ask for {ADAPTER_FILE}, or convert "
                f"it, read as numbers only: {CONVERSION} {shlex.quote(str(pickle))} {shlex.quote(str(path))}"
            )
        raise UserError(f"{path}: no such adapter; train it first")
    check_inside(adapter)
    try:
        tensors = load_file(path)
    except Exception as error:  # safetensors raises its own bare Exception type
        raise UserError(f"{path}: cannot be read as safetensors: {error}") from None
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise UserError(f"{path}: {name} is of {tensor.dtype}, which no adapter has")
        if not tensor.isfinite().all():
            raise UserError(f"{path}: {name} holds values that are not finite numbers; train again")
    up = [tensor for name, tensor in tensors.items() if "lora_B" in name]
    if not up:
        raise UserError(f"{path}: holds no LoRA weights")
    if not any(tensor.any() for tensor in up):
        raise UserError(f"{path}: every lora_B is zero, so the adapter changes nothing: the training did not learn")
    return tensors


def check_adapter(adapter: Path) -> int:
    """The number of LoRA pairs in a saved adapter. Raises UserError as `read_weights` does."""
    return sum("lora_B" in name for name in read_weights(adapter))


def read_config(adapter: Path) -> AdapterConfig:
    """What a saved adapter says of itself. Raises UserError when it is not a plain LoRA."""
    path = adapter / CONFIG_FILE
    try:
        config = AdapterConfig.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "it"
        raise UserError(f"{path}: {key}: {first['msg']}, got {first['input']!r:.200}") from None
    defaults = LoraConfig().to_dict()
    for key, value in (config.model_extra or {}).items():
        if key == "init_lora_weights" and value and value not in STARTS:
            raise UserError(
                f"{path}: {key}: {value!r:.80} changed the base's weights, so this adapter does not fit the base as it "
                "is; PEFT's save_pretrained(…, path_initial_model_for_weight_conversion=…) saves a plain LoRA"
            )
        if key == "init_lora_weights" or (key == "auto_mapping" and _is_of_a_language_model(value)):
            continue
        if value and key not in defaults:
            raise UserError(f"{path}: {key}: is not a key of this PEFT's LoRA, and is set; was another version's used?")
        if value and value != defaults[key] and key not in WITHOUT_EFFECT:
            raise UserError(f"{path}: {key}: is set, and only plain LoRA, rsLoRA and DoRA are loaded")
    return config


def _is_of_a_language_model(auto_mapping: object) -> bool:
    """Whether PEFT noted a causal language model's class, as it does where nobody gave a `task_type`."""
    return isinstance(auto_mapping, dict) and str(auto_mapping.get("base_model_class")).endswith("ForCausalLM")


def check_trained_on(adapter: Path, base: str) -> None:
    """Raise UserError when a run that was trained on `base` holds an adapter that was trained on another model."""
    other = read_config(adapter).base_model_name_or_path
    if other != base:
        raise UserError(f"{adapter}: was trained on {other}, and its run on {base}; take the run's own adapter")


def believed(config: AdapterConfig) -> LoraConfig:
    """PEFT's configuration of what is believed of a saved adapter."""
    values = {name: getattr(config, name) for name in AdapterConfig.model_fields.keys() - {"peft_type", "task_type"}}
    return LoraConfig(**values, task_type="CAUSAL_LM", inference_mode=True)


def lora_config(adapter: Path, weights: Mapping[str, torch.Tensor], model: nn.Module) -> LoraConfig:
    """PEFT's configuration of a saved adapter with these weights for `model`, its target modules written out.

    Raises UserError for what `read_config` refuses, for a rank that the weights do not have, and for a regular
    expression that takes too long or matches nothing.
    """
    config, path = read_config(adapter), adapter / CONFIG_FILE
    lora = believed(config)
    ranks = {tensor.shape[0] for name, tensor in weights.items() if "lora_A" in name and tensor.ndim}
    declared = {config.r, *config.rank_pattern.values()}
    if not ranks <= declared or max(declared) > max(ranks, default=0):
        raise UserError(f"{path}: r is {_listed(declared)}, and the weights have rank {_listed(ranks)}")
    if isinstance(config.target_modules, str):
        lora.target_modules = _matching(path, config.target_modules, (name for name, _ in model.named_modules()))
    return lora


def _matching(path: Path, pattern: str, names: Iterable[str]) -> list[str]:
    end = time.monotonic() + PATTERN_SECONDS
    try:
        found = [name for name in names if regex.fullmatch(pattern, name, timeout=max(0.001, end - time.monotonic()))]
    except TimeoutError:
        raise UserError(f"{path}: target_modules: the regular expression takes too long") from None
    except regex.error as error:
        raise UserError(f"{path}: target_modules: {pattern!r:.200} is not a regular expression: {error}") from None
    if not found:
        raise UserError(f"{path}: target_modules: {pattern!r:.200} matches no module of the base model")
    return found


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers))) or "none"
