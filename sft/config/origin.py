"""Where a value of the configuration came from, to name it in errors."""

import dataclasses
from pathlib import Path

from sft.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where values came from, to name it in errors."""

    path: Path
    overridden: frozenset[str]

    def error(self, key: str, message: str, *others: str) -> UserError:
        """The error about `key`; `others` are keys that take part in a contradiction."""
        pairs = [(f"{name}.", f"{override}.") for name in (key, *others) for override in self.overridden]
        given = any(name.startswith(override) or override.startswith(name) for name, override in pairs)
        return UserError(f"{'command line' if given else self.path}: {key}: {message}")
