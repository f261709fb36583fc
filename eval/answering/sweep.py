"""Answer the same rows under a grid of generation settings, to see what the settings do to open and context questions.

The answers are in runs/A/eval/sweep/, one predictions file a setting, and sweep.json names them.
"""

import contextlib
from pathlib import Path
from typing import Any

from eval.answering.answer import answer_under, planned_provenance, rows_to_answer
from eval.answering.settings import Grid, finished_config
from eval.answering.shots import draw_shots, rows_trained
from eval.border import json_text
from eval.predictions import TUNED
from sft.generation.answerer import load_answerer, open_run
from sft.generation.settings import effective_settings
from sft.run.directory import in_use
from sft.run.provenance import is_answered
from sft.system.files import alone_in, output_directory, write_whole
from sft.system.processes import RANK


def answer_grid(run: Path, grid: Grid, output: Path | None = None, force: bool = False, system: str = TUNED) -> Path:
    """Answer the run's rows under every setting of the grid; returns the directory with the answers and sweep.json.

    Settings that come to the same (a penalty of 1 has no scope) are answered once. Answers that are there already are
    kept; other answers are replaced under `force` only. Raises UserError otherwise.
    """
    with in_use(run):
        config = finished_config(run, grid.overrides)
        rows = rows_to_answer(run, config)
        shots = draw_shots(rows, rows_trained(run, config), config.eval.shots, config.eval.seed)
        directory = output_directory(output or run / "eval" / "sweep")
        opened = open_run(run, grid.overrides)
        effective: list[dict[str, Any]] = []
        answered: list[dict[str, Any]] = []
        paths: dict[Path, dict[str, Any]] = {}
        for setting in grid.settings:
            generation = opened.config.generation | setting
            if (taking_effect := effective_settings(generation)) not in effective:
                effective.append(taking_effect)
                paths[directory / f"predictions-{len(answered):02}.jsonl"] = generation
                answered.append(setting)
        if RANK == 0:
            for setting in answered:
                print("  ".join(f"{key}={value}" for key, value in setting.items()), flush=True)
        provenance = planned_provenance(opened, rows, list(paths.values()), [system])
        with alone_in(directory) if RANK == 0 else contextlib.nullcontext():
            if not is_answered(directory, [path.name for path in paths], provenance, force):
                answerer = load_answerer(opened)
                answer_under(answerer, rows, paths, [system], likelihoods=False, provenance=provenance, shots=shots)
            if RANK == 0:
                summary = {"settings": answered, "predictions": [path.name for path in paths]}
                write_whole(directory / "sweep.json", json_text(summary))
    return directory
