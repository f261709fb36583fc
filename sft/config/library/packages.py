"""Values that need a package which need not be installed, found before anything is loaded and without importing any."""

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

from sft.config.origin import Origin
from sft.config.sections import Config
from sft.system.errors import UserError
from sft.system.yaml_text import read_yaml

_TABLES = read_yaml(Path(__file__).with_suffix(".yaml"))
REPORTERS: dict[str, str] = _TABLES["reporters"]
"""`training.report_to` → the packages that it needs, as pip knows them."""
OPTIMIZERS: dict[str, str] = _TABLES["optimizers"]
"""`training.optim`, a regular expression of which the first counts → the package; the others are PyTorch's."""
EXTRAS: dict[str, str] = _TABLES["extras"]
"""Extra of the installed package → the package that what it is for cannot do without."""
_MODULES: dict[str, str] = _TABLES["modules"]
"""Packages whose module has another name, or of which another one does the same."""


def check_packages(config: Config, origin: Origin, to_train: bool) -> None:
    """Raise UserError, with the pip command, for a value that needs a package which is not installed.

    What only training needs may be missing unless `to_train`.
    """
    for key, value, packages in (*_needs_of_answers(config), *(_needs_of_training(config) if to_train else ())):
        if packages is None:
            raise origin.error(key, f"{value} is none of {', '.join(['none', 'all', *REPORTERS])}")
        if missing := [package for package in packages.split() if not is_installed(package)]:
            raise origin.error(
                key, f"{value} needs what is not installed here: pip install {' '.join(missing)}, or choose another"
            )


def check_extra(extra: str, asked: str) -> None:
    """Raise UserError, with the pip command, where what somebody `asked` for needs an extra that is not installed."""
    if is_installed(EXTRAS[extra]):
        return
    listed = Path(__file__).parents[3] / "requirements" / f"{extra}.txt"  # in a checkout
    words = f"-r {os.path.relpath(listed)}" if listed.is_file() else " ".join(_pins(extra))
    raise UserError(f"{asked} needs {EXTRAS[extra]}, which is not installed here: pip install {words}")


def _pins(extra: str) -> list[str]:
    """What the installed package says of an extra. It is on no index, so its own name is nothing to ask one for."""
    asked = re.compile(rf"""(.+?)\s*;\s*extra == ['"]{extra}['"]""")
    return [found[1] for line in requires("calm-sft") or () if (found := asked.fullmatch(line))]


def _needs_of_answers(config: Config) -> Iterator[tuple[str, str, str | None]]:
    """Key, value and packages, also of what is installed."""
    if config.quantization is not None:
        yield "quantization", "a quantised model", "bitsandbytes"
    if config.model.attention == "flash_attention_2":
        yield "model.attention", "flash_attention_2", "flash-attn"
    if config.generation.get("cache_implementation") == "quantized":
        yield "generation.cache_implementation", "quantized", "optimum-quanto"


def _needs_of_training(config: Config) -> Iterator[tuple[str, str, str | None]]:
    """The same of section `training`; None for the packages of a reporter that is not known."""
    optim, names = config.training.get("optim", ""), config.training["report_to"]
    yield "training.optim", optim, next((OPTIMIZERS[x] for x in OPTIMIZERS if re.fullmatch(x, optim)), "")
    names = [names] if isinstance(names, str) else names
    for name in names if names not in (["none"], ["all"]) else []:
        yield "training.report_to", name, REPORTERS.get(name)


def is_installed(package: str) -> bool:
    """Whether a package, as pip knows it, or another that does the same can be imported; it is not."""
    for module in _MODULES.get(package, package.replace("-", "_")).split():
        with contextlib.suppress(ModuleNotFoundError):  # of what it is in
            if importlib.util.find_spec(module) is not None:
                return True
    return False
