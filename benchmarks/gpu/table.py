"""Results as tables in Markdown, for docs/performance.md. No torch here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.gpu.results import Result

TRAINING = ("bf16", "nf4", "int8", "others")


def utilisation(tokens_per_second: float, flops_per_token: float, tflops: float | None) -> float | None:
    """Share of a peak of so many TFLOP/s that useful tokens' arithmetic takes; None where the peak is not known."""
    return tokens_per_second * flops_per_token / (tflops * 1e12) if tflops else None


def document(results: Sequence[Result]) -> str:
    """All tables, and a list of what was not measured."""
    measured = [result for result in results if result.values]
    card = next((result.values for result in measured if result.part == "card"), {})
    blocks = [
        header(card),
        *exactness([result for result in measured if result.part == "exactness"]),
        *training([result for result in measured if result.part in TRAINING], card),
        *fits([result for result in measured if result.part == "24 GB"]),
        *answering([result for result in measured if result.part == "answering"]),
        *absent([result for result in results if result.status != "measured"]),
    ]
    return "\n\n".join(blocks) + "\n"


def header(card: Mapping[str, Any]) -> str:
    """What all of it was measured on."""
    if not card:
        return "The card was not measured."
    versions = ", ".join(f"{name} {version or '–'}" for name, version in card["versions"].items())
    words = [card["device"]]
    if "memory" in card:
        words += [
            f"{card['memory'] / 1e9:.1f} GB",
            card["capability"],
            f"CUDA {card['cuda']}",
            f"driver {card['driver']}",
        ]
        sheet = card["datasheet_tflops"]
        words.append(f"data sheet {sheet} TFLOP/s" if sheet else "no data sheet known")
    product = f"{card['product_tflops']:.3g} TFLOP/s in a bf16 product of {card['side']}²"
    return f"{card['date']}: {', '.join([*words, product])}. {versions}."


def exactness(results: Sequence[Result]) -> list[str]:
    """How far losses and gradients are from those of separate rows in fp32."""
    return table(
        "Exactness: one step, against separate rows in fp32",
        ("", "loss", "gradient norm", "loss off by", "gradient off by", ""),
        results,
        lambda one: (
            one.name, f"{one.values['loss']:.6f}", f"{one.values['gradient_norm']:.6f}",
            f"{one.values['loss_off']:.1e}", f"{one.values['gradient_off']:.1e}", one.reason or "right",
        ),
    )  # fmt: skip


def training(results: Sequence[Result], card: Mapping[str, Any]) -> list[str]:
    """Speed and memory of training."""

    def cells(one: Result) -> Iterable[str]:
        values = one.values
        speed, flops = values["tokens_per_second"], values["flops_per_token"]
        peaks = (card.get(key) for key in ("datasheet_tflops", "product_tflops"))
        return (
            f"{'bf16' if one.part == 'others' else one.part}, {one.name}", f"{speed:,.0f}",
            *(share(utilisation(speed, flops, peak)) for peak in peaks),
            gigabytes(values["peak_allocated"]), gigabytes(values.get("planned_allocated")),
            gigabytes(values["peak_reserved"]), gigabytes(values.get("planned")),
            "computed again" if values["checkpointing"] else "kept",
        )  # fmt: skip

    rows: list[int] = next((one.values["row_tokens"] for one in results), [])
    headings = (
        "weights, attention", "useful tokens/s", "MFU", "of a product", "peak in use, GB", "planned", "peak taken, GB",
        "planned with context", "activations",
    )  # fmt: skip
    step = (
        f"{len(rows)} rows, {sum(rows):,} tokens (a row's median {median(rows):.0f}, the longest {max(rows):,})"
        if rows
        else ""
    )
    return table(f"Training: a step of {step}", headings, results, cells)


def fits(results: Sequence[Result]) -> list[str]:
    """Whole trainings under a cap."""
    return table(
        "Trainings of one step within 24 GB",
        (
            "configuration", "trains", "peak in use, GB", "peak taken, GB", "context, GB", "planned with context",
            "activations",
        ),
        results,
        lambda one: (
            one.name, one.reason or "yes", gigabytes(one.values["peak_allocated"]),
            gigabytes(one.values["peak_reserved"]), gigabytes(one.values.get("context")),
            gigabytes(one.values["planned"]), "computed again" if one.values["checkpointing"] else "kept",
        ),
    )  # fmt: skip


def answering(results: Sequence[Result]) -> list[str]:
    """Speed of answers."""
    return table(
        "Answering",
        ("", "prompts", "padded tokens a batch", "tokens", "tokens/s", "peak taken, GB"),
        results,
        lambda one: (
            one.name, *(f"{one.values[key]:,}" for key in ("prompts", "budget", "tokens")),
            f"{one.values['tokens_per_second']:,.0f}", gigabytes(one.values["peak_reserved"]),
        ),
    )  # fmt: skip


def absent(results: Sequence[Result]) -> list[str]:
    """What is not in the tables, or wrong there, and why."""
    lines = [f"- {one.part}, {one.name}: {one.status}: {one.reason}" for one in results]
    return ["**Not measured, or not right**", "\n".join(lines)] if lines else []


def table(title: str, headings: Sequence[str], results: Sequence[Result], cells: Callable[[Result], Any]) -> list[str]:
    """A title and a table with a row a result; nothing where there are none."""
    if not results:
        return []
    rows = [headings, ["---", *["--:"] * (len(headings) - 1)], *map(cells, results)]
    return [f"**{title}**", "\n".join(f"| {' | '.join(row)} |" for row in rows)]


def share(value: float | None) -> str:
    """A share in per cent."""
    return "–" if value is None else f"{value:.0%}"


def gigabytes(value: float | None) -> str:
    """Bytes as GB of 10⁹."""
    return "–" if value is None else f"{value / 1e9:.2f}"
