"""Whether packed rows train as separate ones do: their loss and gradient against those of separate rows in fp32.

The model is the base's shape with few layers, so that it fits in fp32. `rows that see each other` is what packing
would be without borders: a comparison that does not find it far off would prove nothing.
"""

import tempfile
from functools import partial
from typing import Any, Literal

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainerCallback

from benchmarks import trainers, training
from benchmarks.gpu.parts import ALONE, FORMS, LEAKING, Form
from benchmarks.gpu.step import attending, train, work_of
from benchmarks.gpu.work import Measures, Work, forget
from sft.model.load import load_base_config
from sft.model.lora import add_lora
from sft.prompt.encoded_rows import IGNORE_INDEX, row_lengths
from sft.system.hub import hub_is_absent
from sft.training.steps import packed

Kind = Form | Literal["rows alone", "rows that see each other"]
KINDS: tuple[Kind, ...] = (ALONE, *FORMS, LEAKING)
FP32 = 1e-3
"""How far packed rows in fp32 may be off, as a share: GPUs add in another order, and some in TF32."""
BF16 = 2.0
"""How many times as far from fp32 as separate rows in bf16 packed ones may be."""
SEEN = 3.0
"""How many times as far rows that see each other must be."""


class Gradient(TrainerCallback):
    """The gradient of the last step, all trained weights one after another, on the CPU in fp32."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        gradients = [p.grad.detach().flatten().float().cpu() for p in model.parameters() if p.requires_grad]
        self.whole = torch.cat(gradients)


def measures(work: Work, part: str) -> Measures:
    """fp32 first, since separate rows in fp32 are what all else is compared with; then bf16."""
    truth: dict[str, Any] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        model = few_layers(work, dtype)
        for form in KINDS:
            if name == "bf16" or form in (ALONE, "dense", "documents"):
                yield f"{name} {form}", partial(compared, work, model, name, form, truth)
        del model
        forget(work.device)


def few_layers(work: Work, dtype: torch.dtype) -> Any:
    """The base model's first layers, with an adapter that is the same in every dtype and whose parts all learn."""
    config = load_base_config(work.base)
    config.num_hidden_layers = work.size.exact_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: work.size.exact_layers]
    model = AutoModelForCausalLM.from_pretrained(
        work.base, config=config, dtype=dtype, device_map={"": work.device}, local_files_only=hub_is_absent()
    )
    adapted = add_lora(model.requires_grad_(False), training.LORA)
    random = torch.Generator().manual_seed(0)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.copy_(torch.randn(parameter.shape, generator=random) / 50)
    return adapted


def compared(work: Work, model: Any, dtype: str, form: Kind, truth: dict[str, Any]) -> dict[str, Any]:
    """Loss and gradient of one step; `truth` keeps separate rows' of fp32, and how far bf16's are from them."""
    loss, gradient = one_step(work, model, form)
    truth.setdefault("loss", loss)
    truth.setdefault("gradient", gradient)
    off = float((gradient - truth["gradient"]).norm() / truth["gradient"].norm())
    loss_off = abs(loss / truth["loss"] - 1)
    found = {"loss": loss, "gradient_norm": float(gradient.norm()), "loss_off": loss_off, "gradient_off": off}
    if form == ALONE:
        truth[dtype] = off
    return found | {"problem": problem(dtype, form, off, truth[dtype])}


def problem(dtype: str, form: Kind, off: float, alone: float) -> str:
    """What is wrong with a gradient that is so far off, where separate rows in this dtype are `alone` off; or ""."""
    if form == LEAKING:
        return "" if off > SEEN * alone else "rows that see each other are not told from those that do not"
    bound = FP32 if dtype == "fp32" else BF16 * alone
    return "" if form == ALONE or off <= bound else f"the gradient is off by {off:.1e}, more than {bound:.1e}"


def one_step(work: Work, model: Any, form: Kind) -> tuple[float, torch.Tensor]:
    """Loss and gradient of all rows at once; the weights stay as they are."""
    settings: dict[str, Any] = {"learning_rate": 0.0, "num_train_epochs": 1, "max_grad_norm": 1e9}
    gradient = Gradient()
    with tempfile.TemporaryDirectory() as scratch:
        prepared = work_of(work, model, scratch, form in FORMS, **settings)._replace(micro_batch=1)
        if form == LEAKING:
            prepared = prepared._replace(encoded=without_borders(prepared.encoded, work.size.max_length))
        if form != ALONE and form != LEAKING:
            prepared = attending(prepared, form)
        trainer = trainers.ours(prepared)
        trainer.add_callback(gradient)
        train(trainer)
    return next(record["loss"] for record in trainer.state.log_history if "loss" in record), gradient.whole


def without_borders(rows: Dataset, capacity: int) -> Dataset:
    """Each bin of packed rows as one row."""
    joined = []
    for number, places in enumerate(packed(row_lengths(rows), 1, capacity)):
        row: dict[str, Any] = {"index": str(number), "category": "", "input_ids": [], "labels": []}
        for place in places:
            row["input_ids"] += rows[place]["input_ids"]
            row["labels"] += [IGNORE_INDEX, *rows[place]["labels"][1:]]  # nothing before it foretells it
        joined.append(row)
    return Dataset.from_list(joined)
