"""Answer a run's held-out rows with base and tuned model, score them by task category, and report.

    python -m eval runs/calm7b-4bit [section.key=value …]
    python -m eval runs/calm7b-4bit --benchmark jsquad  rows that others published: what did the tuning forget?
    python -m eval score predictions.jsonl              score answers again, or anybody's; needs no torch
    python -m eval compare runs/A runs/B […]            paired differences on the same rows
    python -m eval sweep runs/A [generation.key=[a,b] …]  the same rows under several settings, open against context
    python -m eval rate runs/A runs/B                   a blind A/B sheet for people; --collect reads it back
    python -m eval answer rows.jsonl --endpoint http://localhost:8000/v1 --model NAME   any engine's answers, to score
    python -m eval judge runs/A --endpoint http://localhost:8000/v1 --model NAME        a model judges the answers

RUN, score, compare, sweep and judge take --lang ja or en: of the report, and of the terminal.

The results are in runs/<name>/eval/: predictions.jsonl, samples.jsonl, results.json, report.md, report.html, rows.html.
`python -m eval COMMAND --help` explains each.

Settings are the run's, and can be changed by words after it, such as

    eval.rows_per_category=20         fewer rows, for a first look
    eval.data=rows.xlsx               other rows than those that the run held out
    eval.shots=4                      so many training rows as examples in each prompt
    generation.max_new_tokens=300     how long an answer may be, in tokens
    model.device=cpu                  where it is computed

`python -m sft.config` lists all settings, `python -m sft.config eval` explains those of a section.
"""

import difflib
import sys
from pathlib import Path

from eval.commands import (
    answer_rows,
    compare_runs,
    evaluate_run,
    judge_answers,
    rate_runs,
    score_file,
    sweep_run,
)  # fmt: skip
from sft.system.errors import UserError, exit_on_user_error


def main() -> None:
    """Read the command line and do what it says."""
    commands = {"score": score_file, "compare": compare_runs, "sweep": sweep_run, "rate": rate_runs}
    commands |= {"answer": answer_rows, "judge": judge_answers}
    with exit_on_user_error("interrupted; the same command goes on where it stopped"):
        name, *words = sys.argv[1:] or [""]
        if name in commands:
            commands[name](words)
        elif (near := difflib.get_close_matches(name, commands, n=1, cutoff=0.75)) and not Path(name).exists():
            raise UserError(f"{name}: neither a run nor a command; did you mean {near[0]}?")
        else:
            evaluate_run(sys.argv[1:], __doc__)


if __name__ == "__main__":
    main()
