"""Logits that are not finite are noticed, without asking the GPU at every token."""

from typing import NoReturn

import torch
from transformers import LogitsProcessor

from sft.system.errors import UserError


class CheckedLogits(LogitsProcessor):
    """Notes logits whose largest is NaN or inf, of which the library would make an answer like any other.

    `found` says whether there were any; whoever reads it, as `check` does, waits for the GPU. `remedy` is what to set
    where the model's number format is the cause (see `wider_format`). Of `sampled` answers they become 0: whoever draws
    from them ends the process on a GPU.
    """

    def __init__(self, remedy: str | None, sampled: bool) -> None:
        self.remedy = remedy
        self.sampled = sampled
        self.found: torch.Tensor | None = None
        """A truth value on the model's device; None: no logits yet."""
        self.broken = torch.empty(0)
        """(rows,) of the last logits, which were not finite."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return `scores` (rows, vocabulary)."""
        broken = ~scores.amax(dim=-1, keepdim=True).isfinite()
        self.broken = broken[:, 0]
        self.found = broken.any() if self.found is None else self.found | broken.any()
        return scores.masked_fill(broken, 0) if self.sampled else scores

    def ends(self, input_ids: torch.Tensor, scores: object) -> torch.Tensor:
        """(rows,): every row ends once there were any. A stopping criterion of `generate`, which asks at each token."""
        assert self.found is not None, "processors are called before criteria"
        return self.found.expand(len(input_ids))

    def check(self) -> None:
        """Raise UserError where there were any so far."""
        if self.found is not None and self.found:
            self.fail()

    def fail(self) -> NoReturn:
        """Raise the UserError that says so."""
        reason = "its weights are damaged"
        if self.remedy:
            reason += f", or its number format is too narrow for them; try {self.remedy}"
        raise UserError(f"the model's logits are not finite numbers: {reason}")
