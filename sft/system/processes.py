"""How processes share a training: each holds the whole model (DDP), or a part of its weights (FSDP2, ZeRO-3).

All are accelerate's, chosen by its launcher (configs/accelerate). What it would leave out without a word, or what does
not fit this pipeline, is refused here.
"""

import importlib.util
import os

from sft.system.errors import UserError

RANK = int(os.environ.get("RANK", 0))
WORLD_SIZE = int(os.environ.get("WORLD_SIZE", 1))

_ASKED_BY = {"FSDP": "ACCELERATE_USE_FSDP", "DEEPSPEED": "ACCELERATE_USE_DEEPSPEED"}
_WANTED = {
    "FSDP": {"FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"},
    "DEEPSPEED": {"ACCELERATE_DEEPSPEED_ZERO_STAGE": "3", "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true"},
}
"""Settings of the launcher that checkpoints and the saved adapter depend on."""


def divided_by() -> str | None:
    """What the launcher asked for to divide the weights, in accelerate's words; None: each process has all of them."""
    asked = [name for name, variable in _ASKED_BY.items() if os.environ.get(variable, "false").lower() == "true"]
    return asked[0] if asked else None


def check_engine(quantised: bool, adapter: bool, dtype: str, keep_best: str | None = None) -> None:
    """Raise UserError where the weights are to be divided and cannot be, as far as it shows before the model is read.

    `quantised` says whether the base model is, `adapter` whether only an adapter is trained, `dtype` what unquantised
    weights are, as in "torch.bfloat16", and `keep_best` by which validation loss a checkpoint is kept.
    """
    engine = divided_by()
    if engine is None:
        return
    for variable, value in _WANTED[engine].items():
        if os.environ.get(variable, "").lower() != value.lower():
            raise UserError(f"{engine} is to be used with {variable}={value}, as configs/accelerate sets it")
    if engine == "DEEPSPEED" and importlib.util.find_spec("deepspeed") is None:
        raise UserError("DeepSpeed is not installed; pip install deepspeed, or use configs/accelerate/fsdp2.yaml")
    if quantised:
        raise UserError(
            "only unquantised weights are divided; remove section quantization (quantization=null), "
            "or use configs/accelerate/ddp.yaml, where each process has the whole quantised model"
        )
    if engine == "FSDP" and dtype == "torch.float16":
        raise UserError("weights in fp16 are not divided; set model.dtype=bfloat16, or use configs/accelerate/ddp.yaml")
    if keep_best:  # its weights would have to be divided again at the end, which was never tried
        raise UserError(f"training.keep_best: {keep_best} is not for divided weights; use configs/accelerate/ddp.yaml")
    if not adapter:
        raise UserError("weights that are all trained (lora: null) are not divided; use configs/accelerate/ddp.yaml")
    if engine == "DEEPSPEED" and dtype != "torch.float32":
        raise UserError(
            "DeepSpeed would turn the weights into fp32 and say nothing; "
            "set model.dtype=float32, or divide them as they are with configs/accelerate/fsdp2.yaml"
        )


def check_divided(engine: str) -> None:
    """Raise UserError when the weights were to be divided and `engine`, accelerate's distributed type, does not."""
    if divided_by() not in (None, engine):
        raise UserError(
            "accelerate divides weights only among several processes on GPUs, and would train without that here; "
            "use configs/accelerate/ddp.yaml or one-gpu.yaml, on CPUs torchrun"
        )
