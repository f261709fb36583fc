"""`run.html`: a training on one page, as far as it has come: losses, speed, answers by step, rows, settings."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from transformers import TrainerCallback

from sft.config.sections import Config
from sft.data.records import category_label
from sft.overview.page import group_word
from sft.page import svg
from sft.page.blocks import NOTHING, Block, Heading, Quote, Sample, Table, paragraph
from sft.page.blocks import Figure as Drawing
from sft.page.html import render_html
from sft.plan.cards import GB
from sft.plan.prepare import Plan
from sft.plan.preview import rows_by_category
from sft.system.files import write_whole
from sft.system.texts import Count, language, listed, text, told
from sft.training.log import read_lines, validation_losses
from sft.training.loss_plot import Curve, best_point, curve, rows_of_groups, validation_curves, whole_steps

SHOWN_ANSWERS = 8
"""Answers to a question side by side: the first, and the last ones."""
SECONDS_APART = 10
"""A page takes a quarter of a second: one that is this young is not written anew until the next checkpoint."""


class RunPage(TrainerCallback):
    """Writes the page anew at checkpoints and validations, of which those of one step, or moments apart, share one."""

    def __init__(self, config: Config, plan: Plan) -> None:
        self.config = config
        self.plan = plan
        self._written: float | None = None

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write it, where no checkpoint follows."""
        if not control.should_save:
            self.on_save(args, state, control)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write it, unless it was written a moment ago."""
        young = self._written is not None and time.monotonic() < self._written + SECONDS_APART
        if state.is_world_process_zero and not young:
            write_page(self.config, self.plan, state.global_step)
            self._written = time.monotonic()


def write_page(config: Config, plan: Plan, step: int, ended: bool = False) -> None:
    """Write the run's page, from its log and its sample answers, when `step` steps are done.

    `ended`: the training is over, with its last step or before it (`training.patience`).
    """
    run = config.run_directory
    log, answers = read_lines(run / "log.jsonl"), read_lines(run / "samples.jsonl")
    write_whole(run / "run.html", render_html([*blocks(config, plan, step, log, answers, ended)], language()))


def blocks(
    config: Config,
    plan: Plan,
    step: int,
    log: Sequence[dict[str, Any]],
    answers: Sequence[dict[str, Any]],
    ended: bool,
) -> Iterator[Block]:
    """The page, from the top: what a person looks for first comes first."""
    yield Heading(1, text("run.title", run=config.name))
    at = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    done = {"step": Count(step), "steps": Count(plan.steps), "at": at, "base": Path(config.model.base).name}
    if step >= plan.steps:
        yield paragraph(text("run.finished", **done))
    elif ended:
        yield paragraph(text("run.ended", **done))
    else:
        yield paragraph(text("run.state", **done))
    yield Heading(2, text("run.curves"))
    yield from drawings(log, config.training.get("keep_best"))
    if losses := [*validation_table(log)]:
        yield Heading(2, text("run.validation"))
        yield paragraph(text("run.rests_on"))
        yield from losses
    if answers:
        yield Heading(2, text("run.answers"))
        yield paragraph(text("run.answers_are"))
        yield from samples(answers)
    yield Heading(2, text("run.rows"))
    yield from rows(plan)
    yield Heading(2, text("run.settings"))
    yield settings(config)


def drawings(log: Sequence[dict[str, Any]], by: str | None) -> Iterator[Drawing]:
    """Loss with validation by group and the best of group `by`, learning rate, throughput and memory, by step."""
    on = rows_of_groups(log)
    groups = validation_curves(log)
    of_groups = [one._replace(name=_named(group, on)) for group, one in groups.items()]
    best = [one._replace(name=text("run.best", group=_group(one.name))) for one in best_point(log, by)]
    yield _drawing("loss", text("run.loss"), [curve(log, "loss", text("run.training")), *of_groups, *best])
    yield _drawing("rate", text("run.rate"), [curve(log, "learning_rate", colour=svg.ORANGE)])
    yield _drawing("speed", text("run.speed"), [curve(log, "tokens_per_second", colour=svg.GREEN)])
    yield _drawing("memory", text("run.memory"), [curve(log, "memory_peak_bytes", colour=svg.PURPLE, unit=GB)])


def _drawing(name: str, caption: str, curves: Sequence[Curve]) -> Drawing:
    """Curves over the optimizer's steps, with a legend where there are several."""
    named = [(one.name, one.handle) for one in curves] if len(curves) > 1 else []
    top = 0.2 + 0.17 * len(named)

    def paint(figure: Figure) -> None:
        axes = svg.axes_of(figure, left=0.6, bottom=0.42, top=top)
        for one in curves:
            one.draw(axes)
        axes.set_xlabel(text("run.step"))
        whole_steps(axes)
        axes.ticklabel_format(axis="y", scilimits=(-3, 4))
        svg.legend(figure, named)

    return Drawing(svg.draw(name, 2.0 + top, paint, caption), caption)


def validation_table(log: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """Each validation's losses by group, the last one last; nothing where there was none."""
    on = rows_of_groups(log)
    found = {record["step"]: losses for record in log if (losses := validation_losses(record))}
    groups = list(dict.fromkeys(group for losses in found.values() for group in losses))
    if groups:
        lines = [
            [f"{step:,}", *(f"{losses[group]:.4f}" if group in losses else NOTHING for group in groups)]
            for step, losses in found.items()
        ]
        yield Table([text("run.step"), *(_named(group, on) for group in groups)], lines)


def _named(group: Any, on: Mapping[str, int]) -> str:
    """A group with the rows that its loss rests on, where they are known."""
    return text("run.group_on", group=_group(group), rows=Count(on[group])) if group in on else _group(group)


def _group(group: Any) -> str:
    return text("run.overall") if group == "overall" else group_word(group)


def samples(answers: Sequence[dict[str, Any]]) -> Iterator[Sample]:
    """Each question with its answers by step, side by side."""
    by_question: dict[str, list[dict[str, Any]]] = {}
    for one in answers:
        by_question.setdefault(one["index"], []).append(one)
    for asked in by_question.values():
        first = asked[0]
        between = max(0, len(asked) - SHOWN_ANSWERS)
        told_of = text("run.left_out", answers=Count(between)) if between else ""
        texts = [Quote(text("rows.question"), first["question"])]
        texts += [Quote(text("rows.passage"), first["context"])] if first["context"] else []
        texts += [Quote(text("run.reference"), first["reference"])]
        shown = [first, *asked[1 + between :]]
        quotes = [Quote(f"{text('run.step')} {one['step']:,} ({one['finish_reason']})", one["answer"]) for one in shown]
        yield Sample(f"{told(first['row'])}, {group_word(first['group'])}", told_of, tuple(texts), tuple(quotes))


def rows(plan: Plan) -> Iterator[Block]:
    """Where the rows went: to which side, what the length limit did to them, and which cannot be used."""
    heads = [text("rows.category"), text("rows.rows"), text("rows.train"), text("rows.validation"), text("rows.test")]
    heads += [text("run.shorter"), text("run.cut"), text("run.lost")]
    counts = rows_by_category(plan.data, plan.split, plan.train.fates)
    lines = [[category_label(name), *(f"{count:,}" for count in found)] for name, found in counts.items()]
    total = [f"{sum(column):,}" for column in zip(*counts.values(), strict=True)]
    yield Table(heads, [*lines, [text("rows.all"), *total]], strong=frozenset([len(lines)]))
    if dropped := plan.data.drop_counts.most_common():
        heads = [text("rows.reason"), text("rows.category"), text("rows.where"), text("rows.rows")]
        yield Table(heads, [[*_dropped(plan, *kind), f"{count:,}"] for kind, count in dropped], left=3)
    else:
        yield paragraph(text("rows.none_dropped", rows=Count(len(plan.data.rows))))


def _dropped(plan: Plan, reason: str, category: str) -> list[str]:
    places = [row.place for row in plan.data.dropped if (row.reason, row.category) == (reason, category)]
    return [told(reason), category, listed(places)]


def settings(config: Config) -> Table:
    """Every setting, defaults filled in."""
    lines = [
        [f"{section}.{key}", str(value)]
        for section, values in config.model_dump().items()
        for key, value in (values or {}).items()
    ]
    return Table([text("run.setting"), text("run.value")], lines, left=2)
