"""What was found, held against what is promised, and shown: on the terminal, and in docs/models.md."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Column, Table

from benchmarks.shapes.step import Found
from sft.plan.cards import GB, find_card
from sft.plan.memory import COMFORTABLE, CUDA_BYTES
from sft.system.files import write_whole

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- make test-shapes: begin -->", "<!-- make test-shapes: end -->"
TOLERANCE = 0.05
"""How far the planner's figure may be from the peak."""


def needed(found: Found) -> float:
    """Bytes of a card that a configuration needs: what PyTorch holds, and CUDA's own."""
    return max(found.loading, found.reserved, found.answering) + CUDA_BYTES


def problems(found: Found) -> list[str]:
    """What is not as it should be, in words."""
    planned, memory = found.need.total - found.need.rest, find_card(found.card).memory
    wrong = []
    if abs(planned / found.step - 1) > TOLERANCE:
        wrong.append(f"{found.step / GB:.2f} GB at the peak, and {planned / GB:.2f} GB planned")
    if needed(found) > COMFORTABLE * memory:
        wrong.append(f"{needed(found) / GB:.1f} GB leave less than a tenth of {found.card} free")
    if found.waits > found.allowed_waits:
        wrong.append(
            f"{found.waits:g} waits a micro-batch, {found.allowed_waits:g} are allowed: {found.waits_by_place}"
        )
    if not found.in_fp32:
        wrong.append("not all trained weights are fp32")
    if "math" in found.attention:
        wrong.append("attention falls back to its slow form")
    return wrong


def show(results: Sequence[Found], title: str) -> None:
    """Print a row for each, and what holds most of its memory at the peak."""
    right = (
        Column(heading, justify="right")
        for heading in ("GB", "planned", "in all", "of", "kernels", "waits", "allowed", "s")
    )
    table = Table("configuration", "card", *right, title=title, box=box.SIMPLE_HEAD)
    for found in results:
        table.add_row(
            _name(found), found.card, f"{found.step / GB:.2f}", f"{(found.need.total - found.need.rest) / GB:.2f}",
            f"{needed(found) / GB:.1f}", f"{find_card(found.card).memory / GB:g}", f"{found.kernels:,}",
            f"{found.waits:g}", f"{found.allowed_waits:g}", f"{found.seconds:.0f}",
        )  # fmt: skip
    console = Console(width=140)
    console.print(table)
    for found in results:
        most = (f"{size / GB:.2f} {place}" for place, size in list(found.holders.items())[:4])
        console.print(f"{Path(found.config).stem}: {'; '.join(most)}", highlight=False)


def _name(found: Found) -> str:
    return " ".join([Path(found.config).stem, *(text.rpartition(".")[2] for text in found.overrides)])


def write(results: Sequence[Found]) -> None:
    """Put the table of docs/models.md in its place."""
    lines = [
        "| configuration | weights | a micro-batch | activations | fits | GB at the peak | with CUDA and waste | "
        "kernels, waits a micro-batch |",
        "|---|---|---|---|---|--:|--:|--:|",
    ]
    for found in results:
        rows, length = found.layout.shape
        shape = f"{rows} × {length:,} tokens" if found.layout.form == "padded" else f"a bin of {length:,} tokens"
        quantised = found.layout.quantization or {}
        weights = "8-bit" if quantised.get("load_in_8bit") else "4-bit" if quantised else "16-bit"
        weights += ", fp16" if found.layout.autocast else ""
        again = "computed again" if found.layout.checkpointing else "kept"
        fits = f"{'yes' if needed(found) <= COMFORTABLE * find_card(found.card).memory else 'no'}, {found.card}"
        lines.append(
            f"| `{Path(found.config).name}` | {weights} | {shape} | {again} | {fits} | {found.step / GB:.1f} | "
            f"{needed(found) / GB:.1f} | {found.kernels:,}, {found.waits:g} |"
        )
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    write_whole(PAGE, "\n".join([before + BEGIN, *lines, END + after]))
