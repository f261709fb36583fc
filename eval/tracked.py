"""A run's scores reach the trackers that its training told: a table by category, and numbers."""

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eval.metrics.catalogue import HEADLINE
from eval.scoring.results import Results
from sft.page.blocks import NOTHING
from sft.system.errors import UserError, first_line, warn
from sft.system.files import read_json
from sft.system.visible import escaped
from sft.training.trackers import BEGUN, begin_trackers, make_places, remove_links


def report_scores(run: Path, results: Results) -> None:
    """Hand the headline metric by category and group to every tracker of the training.

    A tracker that does not take them is a warning: they are in `results.json` already.
    """
    if not (run / BEGUN).is_file():
        return
    for name, record in read_json(run / BEGUN).items():
        try:
            begin_trackers([name], run)
            make_places([name], run)
            module, reporter = _REPORTERS[name]
            reporter(importlib.import_module(module), record, results)
        except Exception as error:  # whatever its library and its server raise
            warn([f"{name}: not all scores reached it ({first_line(error)}); they are in the report"])
        finally:
            remove_links(run)


def score_rows(results: Results) -> list[list[Any]]:
    """A row for every category and group: its name, its rows, and each system's mean of the headline metric."""
    return [
        [scope.label, results.rows.of(scope), *(scores.of(scope, HEADLINE).mean for scores in results.systems.values())]
        for scope in results.rows.scopes()
    ]


def _columns(results: Results) -> list[str]:
    return ["category", "rows", *(f"{name}, {HEADLINE.name}" for name in results.systems)]


def _numbers(results: Results) -> dict[str, float]:
    """The groups' means: categories may have names that a tracker does not take."""
    return {
        f"scores/{scope.name}/{system}": mean
        for scope in results.rows.scopes()
        for system, scores in results.systems.items()
        if scope.is_group and (mean := scores.of(scope, HEADLINE).mean) is not None
    }


def _markdown(results: Results) -> str:
    """The table as TensorBoard and MLflow show texts."""
    columns = _columns(results)
    lines = [columns, ["---"] * len(columns), *score_rows(results)]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(value: Any) -> str:
    """A category's name may be anything; a mean that there is none of is a dash."""
    if value is None:
        return NOTHING
    return f"{value:.4f}" if isinstance(value, float) else escaped(str(value))


def _tensorboard(module: Any, record: dict[str, Any], results: Results) -> None:
    with module.SummaryWriter(os.environ["TENSORBOARD_LOGGING_DIR"]) as writer:
        writer.add_text("scores by category", _markdown(results))
        for name, value in _numbers(results).items():
            writer.add_scalar(name, value)


def _wandb(module: Any, record: dict[str, Any], results: Results) -> None:
    # As the training had it: what was kept offline is no run of the server's yet, and nobody waits here for a prompt.
    os.environ.setdefault("WANDB_MODE", record.pop("mode"))
    if os.environ["WANDB_MODE"] == "online" and not module.login(prompt=False):
        raise UserError("nobody is logged in, see wandb login")
    with module.init(**record, resume="allow") as opened:
        opened.log({"scores by category": module.Table(columns=_columns(results), data=score_rows(results))})
        opened.summary.update(_numbers(results))


def _trackio(module: Any, record: dict[str, Any], results: Results) -> None:
    module.init(**record, resume="must", embed=False)
    # It reads texts as Markdown.
    rows = [dict(zip(_columns(results), [escaped(name), *row], strict=True)) for name, *row in score_rows(results)]
    module.log({"scores by category": module.Table(data=rows), **_numbers(results)})
    module.finish()


def _mlflow(module: Any, record: dict[str, Any], results: Results) -> None:
    with module.start_run(**record) as begun:
        module.log_metrics(_numbers(results))
        place = begun.info.artifact_uri  # an absolute one, which would be made again where the run was
        local = module.utils.uri.is_local_uri(place, is_tracking_or_registry_uri=False)
        if local and not Path(module.utils.file_utils.local_file_uri_to_path(place)).is_dir():
            raise UserError(f"it has the numbers and no table, since {place} is not there any more")
        module.log_text(_markdown(results), "scores by category.md")


_REPORTERS: dict[str, tuple[str, Callable[[Any, dict[str, Any], Results], None]]] = {
    "tensorboard": ("torch.utils.tensorboard", _tensorboard),
    "wandb": ("wandb", _wandb),
    "trackio": ("trackio", _trackio),
    "mlflow": ("mlflow", _mlflow),
}
"""Tracker → the module that need not be installed, and what reports to it."""
