"""What will happen to this model on this card: lines of the doctor's page, without loading weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from sft.checks.doctor import Line
from sft.model.families import check_checkpointing
from sft.model.lora import add_lora, describe_trained, train_all
from sft.model.loss import add_token_nll
from sft.plan.advice import fitting_advice
from sft.plan.cards import GB, Card
from sft.plan.memory import COMFORTABLE, UTILISATION, Layout, Quantization, estimate, flops_per_token, quantised_linears
from sft.system.errors import UserError

ESTIMATE = "an estimate, not measured on a GPU"


def model_lines(
    model: PreTrainedModel,
    lora: Mapping[str, Any] | None,
    quantization: Quantization,
    checkpointing: bool,
    longest: int,
    largest_id: int,
) -> list[Line]:
    """Whether LoRA, head, vocabulary and positions fit; makes `model`, which has no weights, ready for an estimate.

    `lora` None: all weights are trained. `longest` is the longest row in tokens, `largest_id` its largest token id.
    """
    lines = []
    try:
        trained = describe_trained(train_all(model) if lora is None else add_lora(model, lora))
        lines.append(Line("green", "weights" if lora is None else "LoRA", trained.removeprefix("LoRA ")))
    except UserError as error:
        lines.append(Line.of("red", "LoRA", error))
    head = model.get_output_embeddings()
    if any(module is head for _, module in quantised_linears(model, quantization)):
        remedy = "name it in quantization.llm_int8_skip_modules, or leave that key out"
        lines.append(Line("red", "output layer", "it would be quantised, which the loss cannot use", remedy))
    for subject, check in (("output layer", add_token_nll), ("checkpointing", check_checkpointing)):
        try:
            if subject != "checkpointing" or checkpointing:
                check(model)
        except UserError as error:
            lines.append(Line.of("red", subject, error))
    words = model.get_input_embeddings().weight.shape[0]
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if largest_id >= words:
        found = f"the rows have token id {largest_id:,}, and the model only {words:,} embeddings"
        lines.append(Line("red", "vocabulary", found, "take the model's own tokenizer (model.tokenizer=null)"))
    if positions and longest > positions:
        found = f"the longest row has {longest:,} tokens, and the model was made for {positions:,} positions"
        lines.append(Line("red", "positions", found, f"set training.max_length={positions}"))
    if largest_id < words and not (positions and longest > positions):
        named = f"{positions:,} positions" if positions else "positions without a limit"
        lines.append(Line("green", "model", f"{type(model).__name__}, {words:,} words, {named}"))
    return lines


def memory(model: PreTrainedModel, layout: Layout, card: Card | None, asked: Layout) -> Line:
    """Whether training fits the card (None: only what it needs), and what would make it fit.

    `layout` is what training will settle on there, `asked` what the configuration says.
    """
    need = estimate(model, layout)
    parts = ("weights", "trained", "activations", "CUDA and waste")
    words = ", ".join(f"{name} {value / GB:.1f}" for name, value in zip(parts, need, strict=True))
    rows, length = layout.shape
    shape = f"{rows} × {length:,} tokens" if layout.form == "padded" else f"bins of at most {length:,} tokens"
    if layout.rows != asked.rows:
        shape += f" (smaller than configured, which would take {estimate(model, asked).total / GB:.1f} GB)"
    shape += ", activations computed again" * layout.checkpointing
    found = f"about {need.total / GB:.1f} GB of GPU memory for {shape}: {words} ({ESTIMATE})"
    if card is None:
        return Line("green", "memory", f"{found}; --card 24GB compares it with a card")
    share = need.total / card.memory
    if share <= COMFORTABLE:
        return Line("green", "memory", f"fits {card.name}: {found}")
    advice = fitting_advice(model, layout, COMFORTABLE * card.memory)
    remedy = advice or "no setting here makes it fit: take a smaller model or a larger card"
    verdict = f"does not fit {card.name}" if share > 1 else f"hardly fits {card.name}"
    return Line("red" if share > 1 else "yellow", "memory", f"{verdict}: {found}", remedy)


def duration(model: PreTrainedModel, tokens: float, checkpointing: bool, card: Card | None, processes: int) -> Line:
    """How long training on `tokens` takes, all epochs together."""
    flops = flops_per_token(model, checkpointing)
    found = f"{tokens:,.0f} tokens × {flops / 1e9:.3g} GFLOP"
    if card is None or card.tflops is None:
        return Line("green", "time", f"{found}; a card by name (--card RTX3090) gives hours")
    slow, fast = (share * card.tflops * 1e12 * processes for share in UTILISATION)
    hours = f"{_time(tokens * flops / fast)} to {_time(tokens * flops / slow)}"
    peak = f"{UTILISATION[0]:.0%} to {UTILISATION[1]:.0%} of {card.tflops:g} TFLOP/s"
    cards = f"{processes} × {card.name}" if processes > 1 else card.name
    return Line("green", "time", f"{hours} on {cards}: {found} at {peak} ({ESTIMATE})")


def number_format(dtype: str, card: Card | None) -> list[Line]:
    """Whether the card computes in `model.dtype`; nothing where it does."""
    if card is None or card.bfloat16 or dtype != "bfloat16":
        return []
    return [Line("red", "dtype", f"{card.name} has no bfloat16", "set model.dtype=float16")]


def varlen_kernel(card: Card | None, on_cpu: bool) -> list[Line]:
    """Whether PyTorch's kernel for packed rows runs there; nothing where it does. None: a card that is not known."""
    if not on_cpu and (card is None or card.bfloat16):  # which came with sm80, and so did flash kernels
        return []
    where = "a CPU has none" if card is None else f"{card.name} is older than compute capability 8.0 (Ampere)"
    remedy = "set training.packed_attention=documents or dense"
    return [Line("red", "packed attention", f"varlen needs flash attention's kernels, and {where}", remedy)]


def sources(repositories: Mapping[str, tuple[str, str | None]], trust_remote_code: bool) -> list[Line]:
    """Whether model and data stay what they are: (hub id or path, revision) by the section that names it."""
    on_hub = {section: pair for section, pair in repositories.items() if not Path(pair[0]).exists()}
    loose = {section: name for section, (name, revision) in on_hub.items() if revision is None}
    pinned = ", ".join(f"{name} at {revision}" for name, revision in on_hub.values())
    lines = [Line("green", "revisions", pinned or "model and data are local files")]
    if loose:
        keys = " and ".join(f"{section}.revision" for section in loose)
        found = f"not pinned, and may change on the hub: {' and '.join(loose.values())}"
        lines = [Line("yellow", "revisions", found, f"set {keys} to a commit")]
    if trust_remote_code:
        found = "Python code that comes with the model is run (model.trust_remote_code)"
        lines.append(Line("yellow", "foreign code", found, "read it, and pin model.revision"))
    return lines


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
