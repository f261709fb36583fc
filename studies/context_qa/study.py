"""Why do context questions fail after tuning? Train the arms, answer under every decoding, report.

    python studies/context_qa/study.py studies/context_qa/gemma3-270m.yaml [section.key=value …]

A finished training or predictions file is kept, so the same command goes on where it was stopped.
"""

import gc
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from eval.predictions import BASE, TUNED, read_predictions  # noqa: E402
from sft.config.load import load_config  # noqa: E402
from sft.data.read import load_data  # noqa: E402
from sft.data.records import CATEGORIES, Example, category_order  # noqa: E402
from sft.data.rows import category_counts, examples_of  # noqa: E402
from sft.run.checkpoints import newest_whole  # noqa: E402
from sft.run.directory import require_finished  # noqa: E402
from sft.run.manifest import read_manifest  # noqa: E402
from sft.system.command_line import command_parser  # noqa: E402
from sft.system.errors import UserError, exit_on_user_error  # noqa: E402
from sft.system.processes import RANK, WORLD_SIZE  # noqa: E402
from studies.context_qa.plan import (  # noqa: E402
    GREEDY,
    Cell,
    RowSet,
    RowsName,
    Study,
    cells,
    changed_setting,
    load_study,
    systems,
)  # fmt: skip

if TYPE_CHECKING:  # these import torch, which --help and --report need not wait for
    from sft.generation.answerer import Answerer


def main() -> None:
    """Read the command line and do what is left of the study."""
    parser = command_parser(__doc__)
    parser.add_argument("study", type=Path, help="a YAML file, e.g. studies/context_qa/gemma3-270m.yaml")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the study's file")
    parser.add_argument("--only", nargs="+", metavar="SYSTEM", help="train and answer these alone; give it last")
    parser.add_argument("--report", action="store_true", help="report from what there is; train and answer nothing")
    arguments = parser.read()
    with exit_on_user_error("interrupted; the same command goes on where it stopped"):
        study = load_study(arguments.study, arguments.overrides)
        if not arguments.report:
            wanted = chosen(study, arguments.only)
            check_decodings(study)
            check_rows(study)
            train(study, wanted)
            answer(study, wanted)
        if RANK == 0:
            report(study)


def chosen(study: Study, only: Sequence[str] | None) -> list[str]:
    """The systems to work on: all, or those asked for. Raises UserError for one that the study does not have."""
    for name in only or ():
        if name not in systems(study):
            raise UserError(f"--only: {name} is no system of this study; known: {', '.join(systems(study))}")
    return [name for name in systems(study) if not only or name in only]


def check_decodings(study: Study) -> None:
    """Raise UserError for a generation setting that does not exist or has a wrong value, before hours of training."""
    load_config(study.config, study.common)  # what is wrong without a decoding is not the decoding's
    for name in study.decodings:
        try:
            load_config(study.config, study.decoding(name))
        except UserError as error:
            raise UserError(f"decodings.{name}: {error}") from None


def check_rows(study: Study) -> None:
    """Raise UserError for a file of rows that is missing or of no use, before hours of training."""
    data = load_config(study.config, study.common).data
    for name, wanted in study.rows.items():
        own = [category for category in wanted.categories if category not in CATEGORIES]
        if not wanted.path and not own:
            continue
        try:
            rows = load_data(wanted.path or data.sources).rows
        except UserError as error:
            raise UserError(f"rows.{name}.path: {error}") from None
        known = category_counts(rows)
        if unknown := [category for category in own if category not in known]:
            listed = ", ".join(category_order(known)[:20])
            raise UserError(f"rows.{name}.categories: {unknown[0]} is no category of its rows; known: {listed}")
        if wanted.path:
            some_row_of(name, wanted, list(examples_of(rows)))


def some_row_of(name: RowsName, wanted: RowSet, rows: Sequence[Example]) -> list[Example]:
    """The rows that have one of the categories. Raises UserError when none has."""
    found = [row for row in rows if row.category in wanted.categories]
    if not found:
        raise UserError(f"rows.{name}: {wanted.path or 'the test rows'} has no row of {', '.join(wanted.categories)}")
    return found


def train(study: Study, wanted: Sequence[str]) -> None:
    """Train what `wanted` needs and is not trained; the base model answers through one of the trained runs.

    Raises UserError when a run was trained with other settings than the study's, or a training fails.
    """
    needed = [name for name in study.trained() if name in wanted]
    if not needed and not finished_runs(study):
        needed = [next(iter(study.trained()))]
    for name in needed:
        check_training(study, *study.trained()[name])
    left = [name for name in needed if name not in finished_runs(study)]
    if left and WORLD_SIZE > 1:
        raise UserError(f"{len(left)} trainings are left ({', '.join(left)}); train them with one process first")
    for done, name in enumerate(left):
        seconds = [require_finished(study.run(*study.trained()[other])).seconds for other in finished_runs(study)]
        each = (
            f"about {duration(sum(seconds) / len(seconds) * (len(left) - done))} left" if seconds else "not timed yet"
        )
        say(f"training {name}: {done + 1} of {len(left)} left to train; {each}")
        run_training(study, *study.trained()[name])


def finished_runs(study: Study) -> list[str]:
    """The trainings that are finished, in the study's order."""
    return [name for name, training in study.trained().items() if status(study.run(*training)) == "finished"]


def status(run: Path) -> str | None:
    """`finished` or `running` (interrupted, unless a process trains it now); None when nothing was begun."""
    return read_manifest(run).status if (run / "manifest.json").is_file() else None


def check_training(study: Study, arm: str, seed: int) -> None:
    """Raise UserError when the arm's settings are wrong, or its run was trained with others."""
    run = study.run(arm, seed)
    wanted = load_config(study.config, study.training(arm, seed)).with_absolute_paths()
    if status(run) != "finished":
        return
    changes = load_config(run / "config.yaml", to_train=False).changes_training(wanted)
    # Where the rows lie does not matter: what is in them is checked before they are answered.
    changes = [change for change in changes if not change.startswith("data.path ")]
    if changes:
        raise UserError(f"{run}: was trained with other settings: {'; '.join(changes)}; move it or set directory=…")


def run_training(study: Study, arm: str, seed: int) -> None:
    """Run train_sft.py to its end, from the last checkpoint where there is one."""
    run = study.run(arm, seed)
    words = [str(ROOT / "train_sft.py"), study.config, *study.training(arm, seed)]
    if status(run) is not None:
        words.append("--resume" if has_checkpoint(run) else "--force")
    exit_status = subprocess.run([sys.executable, *words], check=False).returncode
    if exit_status == 130:
        raise KeyboardInterrupt
    if exit_status:
        raise UserError(f"{run}: the training ended with status {exit_status}; the same command goes on with it")


def has_checkpoint(run: Path) -> bool:
    """Whether an interrupted run can be continued."""
    try:
        newest_whole(run / "checkpoints")
    except UserError:
        return False
    return True


def answer(study: Study, wanted: Sequence[str]) -> None:
    """Answer every cell of `wanted` that has no file. A model is loaded once for the cells that follow each other."""
    every = [cell for cell in cells(study) if cell.system in wanted]
    left = [cell for cell in every if not cell.path(study).is_file()]
    say(f"answers: {len(every) - len(left)} of {len(every)} files are there")
    through = finished_runs(study)[0]
    rows = rows_by_name(study, study.run(*study.trained()[through]))
    for cell in every:
        if cell not in left:
            check_answered(study, cell, rows[cell.rows])
    if not left:
        return
    if any(cell.system == BASE for cell in left):
        say(f"the base model answers through {study.run(*study.trained()[through])}, its adapter switched off")
    run_of = {name: study.run(*training) for name, training in study.trained().items()} | {
        BASE: study.run(*study.trained()[through])
    }
    clock = Clock(sum(len(rows[cell.rows]) for cell in left))
    for run, members in itertools.groupby(left, key=lambda cell: run_of[cell.system]):
        answer_through(study, run, list(members), clock)


def check_answered(study: Study, cell: Cell, rows: Sequence[Example]) -> None:
    """Raise UserError when a file holds answers to other rows, or under other settings, than the study has now."""
    path = cell.path(study)
    predictions = list(read_predictions(path))
    config = load_config(study.config, study.decoding(cell.decoding))
    changed = changed_setting(predictions[0].generation, config.generation)
    shots = max(len(p.shots) for p in predictions)
    if shots != config.eval.shots:
        changed = f"eval.shots was {shots}, is {config.eval.shots}"
    if {p.example.index: p.example for p in predictions} != {row.index: row for row in rows}:
        changed = f"its rows are not those of rows.{cell.rows}"
    if changed:
        raise UserError(f"{path}: was answered otherwise: {changed}; move it away, or set directory=…")


class Clock:
    """How long the remaining rows take, from those answered since the start."""

    def __init__(self, rows: int) -> None:
        self.started = time.monotonic()
        self.rows = rows
        self.answered = 0

    def add(self, rows: int) -> str:
        """Count rows as answered; says what is left."""
        self.answered += rows
        each = (time.monotonic() - self.started) / self.answered
        left = self.rows - self.answered
        return f"{self.answered} of {self.rows} rows answered; about {duration(each * left)} left"


def answer_through(study: Study, run: Path, members: Sequence[Cell], clock: Clock) -> None:
    """Load a run's model and answer cells with it."""
    from eval.answering.answer import answer_under
    from eval.answering.shots import draw_shots, rows_trained
    from sft.generation.answerer import load_answerer, open_run

    rows = rows_by_name(study, run)
    answerer: Answerer = load_answerer(open_run(run, study.common))
    trained, asked = rows_trained(run, answerer.config), answerer.config.eval
    # The decodings of a set of rows are answered together, so that its prompts are read once.
    for (system, name, greedy), same in itertools.groupby(members, lambda c: (c.system, c.rows, c.decoding == GREEDY)):
        together = list(same)
        say(f"answering {system}, {name}, {', '.join(cell.decoding for cell in together)}: {len(rows[name])} rows")
        settings = {cell.path(study): answerer.generation | study.decodings[cell.decoding] for cell in together}
        together[0].path(study).parent.mkdir(parents=True, exist_ok=True)
        shots = draw_shots(rows[name], trained, asked.shots, asked.seed)
        systems = [BASE if system == BASE else TUNED]
        answer_under(answerer, rows[name], settings, systems, likelihoods=greedy, shots=shots)
        say(clock.add(len(rows[name]) * len(together)))
    del answerer
    gc.collect()  # a model is full of cycles, and two may not fit


def rows_by_name(study: Study, run: Path) -> dict[RowsName, list[Example]]:
    """The study's rows, as `python -m eval RUN` would choose them. Raises UserError when a set has none."""
    from eval.answering.answer import rows_to_answer

    found = {}
    for name, wanted in study.rows.items():
        choice = [f"eval.data={json.dumps(wanted.path)}", f"eval.rows_per_category={json.dumps(wanted.rows)}"]
        rows = rows_to_answer(run, load_config(run / "config.yaml", [*study.common, *choice], to_train=False))
        found[name] = some_row_of(name, wanted, rows)
    return found


def report(study: Study) -> None:
    """Score and report what there is."""
    from studies.context_qa.report import write_report

    say(f"{write_report(study) / 'tables.md'}: every table; results.json and the figures are beside it")


def duration(seconds: float) -> str:
    """`1 h 05 min` or `12 min`."""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def say(line: str) -> None:
    """Print at once, from one process only."""
    if RANK == 0:
        print(line, flush=True)


if __name__ == "__main__":
    main()
