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
from sft.system.texts import Count, Said, all_of, one_after_another, said


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
        found = Said(*(words.removeprefix("LoRA ") for words in (trained, trained.here)))  # the subject says it
        lines.append(Line("green", "weights" if lora is None else "LoRA", found))
    except UserError as error:
        lines.append(Line.of("red", "LoRA", error))
    head = model.get_output_embeddings()
    if any(module is head for _, module in quantised_linears(model, quantization)):
        lines.append(Line("red", "output layer", said("doctor.head_quantised"), said("doctor.skip_head")))
    for subject, check in (("output layer", add_token_nll), ("checkpointing", check_checkpointing)):
        try:
            if subject != "checkpointing" or checkpointing:
                check(model)
        except UserError as error:
            lines.append(Line.of("red", subject, error))
    words = model.get_input_embeddings().weight.shape[0]
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if largest_id >= words:
        found = said("doctor.no_embedding", id=Count(largest_id), words=Count(words))
        lines.append(Line("red", "vocabulary", found, said("doctor.own_tokenizer")))
    if positions and longest > positions:
        found = said("doctor.too_long", tokens=Count(longest), positions=Count(positions))
        lines.append(Line("red", "positions", found, said("doctor.set_length", positions=positions)))
    if largest_id < words and not (positions and longest > positions):
        named = said("doctor.positions", positions=Count(positions)) if positions else said("doctor.any_positions")
        found = said("doctor.model", kind=type(model).__name__, words=Count(words), positions=named)
        lines.append(Line("green", "model", found))
    return lines


def memory(model: PreTrainedModel, layout: Layout, card: Card | None, asked: Layout) -> Line:
    """Whether training fits the card (None: only what it needs), and what would make it fit.

    `layout` is what training will settle on there, `asked` what the configuration says.
    """
    need = estimate(model, layout)
    rows, length = layout.shape
    if layout.form == "padded":
        shape = said("doctor.padded", rows=rows, length=Count(length))
    else:
        shape = said("doctor.bins", length=Count(length))
    if layout.rows != asked.rows:
        asked_gb = f"{estimate(model, asked).total / GB:.1f}"
        shape = said("doctor.smaller", shape=shape, gb=asked_gb)
    if layout.checkpointing:
        shape = said("doctor.computed_again", shape=shape)
    names = ("weights", "trained", "activations", "rest")
    parts = {name: f"{value / GB:.1f}" for name, value in zip(names, need, strict=True)}
    found = said("doctor.need", gb=f"{need.total / GB:.1f}", shape=shape, **parts)
    if card is None:
        return Line("green", "memory", said("doctor.card_to_compare", found=found))
    share = need.total / card.memory
    if share <= COMFORTABLE:
        return Line("green", "memory", said("doctor.fits", card=card.name, found=found))
    advice = fitting_advice(model, layout, COMFORTABLE * card.memory)
    remedy = said("doctor.advice", changes=advice) if advice else said("doctor.nothing_fits")
    values = {"card": card.name, "found": found}
    if share > 1:
        return Line("red", "memory", said("doctor.does_not_fit", **values), remedy)
    return Line("yellow", "memory", said("doctor.hardly_fits", **values), remedy)


def duration(model: PreTrainedModel, tokens: float, checkpointing: bool, card: Card | None, processes: int) -> Line:
    """How long training on `tokens` takes, all epochs together."""
    flops = flops_per_token(model, checkpointing)
    found = said("doctor.flops", tokens=f"{tokens:,.0f}", flops=f"{flops / 1e9:.3g}")
    if card is None or card.tflops is None:
        return Line("green", "time", said("doctor.name_a_card", found=found))
    slow, fast = (_time(tokens * flops / (share * card.tflops * 1e12 * processes)) for share in UTILISATION)
    low, high = (f"{share:.0%}" for share in UTILISATION)
    cards = f"{processes} × {card.name}" if processes > 1 else card.name
    values = {"fast": fast, "slow": slow, "cards": cards, "low": low, "high": high, "tflops": f"{card.tflops:g}"}
    return Line("green", "time", said("doctor.hours", found=found, **values))


def number_format(dtype: str, card: Card | None) -> list[Line]:
    """Whether the card computes in `model.dtype`; nothing where it does."""
    if card is None or card.bfloat16 or dtype != "bfloat16":
        return []
    return [Line("red", "dtype", said("doctor.no_bfloat16", card=card.name), said("doctor.set_float16"))]


def varlen_kernel(card: Card | None, on_cpu: bool) -> list[Line]:
    """Whether PyTorch's kernel for packed rows runs there; nothing where it does. None: a card that is not known."""
    if not on_cpu and (card is None or card.bfloat16):  # which came with sm80, and so did flash kernels
        return []
    found = said("doctor.no_varlen_cpu") if card is None else said("doctor.no_varlen", card=card.name)
    return [Line("red", "packed attention", found, said("doctor.set_documents"))]


def sources(repositories: Mapping[str, tuple[str, str | None]], trust_remote_code: bool) -> list[Line]:
    """Whether model and data stay what they are: (hub id or path, revision) by the section that names it."""
    on_hub = {section: pair for section, pair in repositories.items() if not Path(pair[0]).exists()}
    loose = {section: name for section, (name, revision) in on_hub.items() if revision is None}
    pinned = [said("doctor.pinned", name=name, revision=revision) for name, revision in on_hub.values()]
    lines = [Line("green", "revisions", one_after_another(pinned) or said("doctor.local_files"))]
    if loose:
        keys = all_of(f"{section}.revision" for section in loose)
        found = said("doctor.not_pinned", names=all_of(loose.values()))
        lines = [Line("yellow", "revisions", found, said("doctor.pin", keys=keys))]
    if trust_remote_code:
        lines.append(Line("yellow", "foreign code", said("doctor.foreign_code"), said("doctor.read_code")))
    return lines


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
