"""The picture of a training run: loss by step, validation loss by group, learning rate."""

import io
import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

from sft.system.files import write_whole
from sft.training.log import validation_losses

matplotlib.use("Agg")


def plot_loss(log: Path, picture: Path) -> None:
    """Draw `log` (JSON lines as the trainer writes them) into the PNG file `picture`."""
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    steps = [record for record in records if "loss" in record]
    axes.plot([r["step"] for r in steps], [r["loss"] for r in steps], label="training", linewidth=1, color="0.45")
    validations = [(record["step"], validation_losses(record)) for record in records]
    for group in dict.fromkeys(group for _, losses in validations for group in losses):
        points = [(step, losses[group]) for step, losses in validations if group in losses]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=f"validation: {group}")
    axes.set_xlabel("optimizer step")
    axes.set_ylabel("loss (nats a supervised token)")
    rates = axes.twinx()
    rates.plot([r["step"] for r in steps], [r["learning_rate"] for r in steps], ":", color="tab:orange", linewidth=1)
    rates.set_ylabel("learning rate (dotted)")
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=120, format="png")
    plt.close(figure)
    write_whole(picture, drawn.getvalue())
