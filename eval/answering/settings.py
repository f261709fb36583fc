"""Under which settings a finished run answers, checked before anything heavy is loaded. No torch here."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sft.config.load import override
from sft.config.repetition_penalty import GRID
from sft.config.sections import Config
from sft.run.directory import require_usable, settings_of
from sft.system.errors import UserError
from sft.system.yaml_text import dump_yaml


class Grid(NamedTuple):
    """Generation settings, by key, to answer under one after the other, and the overrides that hold for all of them."""

    settings: list[dict[str, Any]]
    overrides: list[str]


def finished_config(run: Path, overrides: Sequence[str]) -> Config:
    """The configuration of a finished run, with `overrides`. Raises UserError when it has none, or a wrong one.

    So, too, for an adapter without a run, where they name no rows: it held none out.
    """
    manifest = require_usable(run)
    config = settings_of(run, overrides)
    if manifest is None and not config.eval.data:
        raise UserError(f"{run}: is an adapter without its run, and its held-out rows; name rows: eval.data=FILE")
    return config


def read_grid(run: Path, words: Sequence[str]) -> Grid:
    """The grid of a sweep; penalty × scope where no word is an axis.

    `words` are `section.key=value` in YAML; those of `generation` whose value is a list are the axes. Raises UserError
    as `finished_config` does.
    """
    require_usable(run)
    axes, overrides = split_axes(words)
    settings = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    for setting in settings:
        axis_words = [f"generation.{key}={dump_yaml(value)}" for key, value in setting.items()]
        settings_of(run, [*overrides, *axis_words])
    return Grid(settings, overrides)


def split_axes(words: Sequence[str]) -> tuple[dict[str, list[Any]], list[str]]:
    """The grid's axes by generation key, and the overrides that hold for all of it. Raises UserError for a bad word."""
    axes: dict[str, list[Any]] = {}
    overrides = []
    for word in words:
        values: dict[str, Any] = {}
        section, _, key = override(values, word).partition(".")
        value = values[section].get(key) if key else None
        if section != "generation" or not isinstance(value, list):
            overrides.append(word)
        elif not value:
            raise UserError(f"command line: {section}.{key}: the list is empty")
        else:
            axes[key] = value
    return axes or GRID, overrides
