"""Why do context questions fail after tuning? Train the arms, answer under every decoding, report.

    python studies/context_qa/study.py studies/context_qa/gemma3-270m.yaml [section.key=value …]

A finished training or predictions file is kept, so the same command goes on where it was stopped.
"""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sft.config.changes import training_changes  # noqa: E402
from sft.config.load import load_config  # noqa: E402
from sft.data.files.sources import files_of  # noqa: E402
from sft.run.checkpoints import newest_whole  # noqa: E402
from sft.run.directory import require_finished  # noqa: E402
from sft.run.manifest import read_manifest  # noqa: E402
from sft.system.command_line import command_parser  # noqa: E402
from sft.system.errors import UserError, exit_on_user_error  # noqa: E402
from sft.system.processes import RANK, WORLD_SIZE  # noqa: E402
from studies.context_qa.pace import duration, say  # noqa: E402
from studies.context_qa.plan import Study, load_study, systems, units  # noqa: E402
from studies.context_qa.report.write import write_report  # noqa: E402
from studies.context_qa.same_settings import check_scored  # noqa: E402


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
            work(study, chosen(study, arguments.only))
        if RANK == 0:
            directory = write_report([study], study.root / "report")
            say(f"{directory / 'tables.md'}: every table; results.json and the figures are beside it")


def work(study: Study, wanted: Sequence[str]) -> None:
    """Train, answer and score what `wanted` has no scores of. What has them is held against the study's settings."""
    check_asked(study)
    mine = [unit for unit in units(study) if unit.system in wanted]
    left = [unit for unit in mine if not unit.scores(study).is_file()]
    for unit in mine:
        if unit not in left:
            check_scored(study, unit)
    say(f"scores: {len(mine) - len(left)} of {len(mine)} files are there")
    if not left:
        return
    from studies.context_qa.answering import answer
    from studies.context_qa.rows import asked_rows

    rows = asked_rows(study)
    train(study, list(dict.fromkeys(unit.system for unit in left)))
    answer(study, rows, left)


def chosen(study: Study, only: Sequence[str] | None) -> list[str]:
    """The systems to work on: all, or those asked for. Raises UserError for one that the study does not have."""
    for name in only or ():
        if name not in systems(study):
            raise UserError(f"--only: {name} is no system of this study; known: {', '.join(systems(study))}")
    return [name for name in systems(study) if not only or name in only]


def check_asked(study: Study) -> None:
    """Raise UserError for a setting that does not exist or has a wrong value, before hours of training."""
    load_config(study.config, study.common)  # what is wrong without them is not theirs
    asked = {f"arms.{name}": study.training(name, study.seeds[0]) for name in study.arms}
    asked |= {f"decodings.{name}": study.decoding(name) for name in study.decodings}
    asked |= {f"untuned.{name}": [*study.common, *words] for name, words in study.untuned.items()}
    for key, words in asked.items():
        try:
            load_config(study.config, words)
        except UserError as error:
            raise UserError(f"{key}: {error}") from None


def train(study: Study, wanted: Sequence[str]) -> None:
    """Train what of `wanted` is not trained; the base model needs none.

    Raises UserError when a run was trained with other settings than the study's, or a training fails.
    """
    needed = [name for name in study.trained() if name in wanted]
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
    """Raise UserError when the arm's settings are wrong, its rows are not there, or its run was trained with others."""
    run = study.run(arm, seed)
    wanted = load_config(study.config, study.training(arm, seed)).with_absolute_paths()
    if status(run) != "finished":
        files_of(wanted.data.sources)  # hours of other arms may come before this one
        return
    changes = training_changes(load_config(run / "config.yaml", to_train=False), wanted)
    # Where rows and base model lie does not matter: what is in them is checked before anything is answered.
    changes = [change for change in changes if not change.startswith(("data.path ", "model.base "))]
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


if __name__ == "__main__":
    main()
