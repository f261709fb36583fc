"""`data.balance`: how often an epoch shows the rows of each category."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from sft.config.section import Section
from sft.data.records import GROUPS, category_name


class Balance(Section):
    """How often an epoch shows the rows of each category: exactly one of `weights` and `temperature` says it."""

    weights: dict[str, float] | None = None
    """Weight by group (open, context, other) or category, 0 to 1000: 2 shows every row twice an epoch, 0.5 the first
    half of them, 0 none. A category's own weight wins over its group's, and what is not named has weight 1."""
    temperature: float | None = Field(None, ge=0, le=1)
    """Shares of the epoch in proportion to rows ** temperature: 1 changes nothing, 0 makes all equal. The largest is
    shown once and smaller ones come again, so no row is lost and the epoch gets longer."""
    by: Literal["group", "category"] = "group"
    """What `temperature` evens out. group: the three groups, each with its categories in their proportions."""

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, weights: dict[str, float] | None) -> dict[str, float] | None:
        if weights is None:
            return None
        for name, weight in weights.items():
            if not 0 <= weight <= 1000:
                raise ValueError(f"{name} must be at least 0 and at most 1000, got {weight:g}")
        if not any([*weights.values(), *(weights.get(group, 1.0) for group in GROUPS)]):
            raise ValueError("every category has weight 0; give at least one of them more")
        return {category_name(name): weight for name, weight in weights.items()}

    @model_validator(mode="after")
    def _check_one_way(self) -> Self:
        if (self.weights is None) == (self.temperature is None):
            both = "contradict each other" if self.weights is not None else "are both missing"
            raise ValueError(f"weights and temperature {both}; give exactly one of them")
        if self.weights is not None and self.by != "group":
            raise ValueError("by says what temperature evens out; leave it out beside weights")
        return self
