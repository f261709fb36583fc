"""Logits that are not numbers are noticed, without asking the GPU at every token."""

import torch
from transformers import LogitsProcessor

from sft.system.errors import UserError


class CheckedLogits(LogitsProcessor):
    """Notes logits that are NaN, of which the library would make an answer like any other.

    `found` says whether there were any; whoever reads it, as `check` does, waits for the GPU. `remedy` is what to set
    where the model's number format is the cause (see `wider_format`). Of `sampled` answers NaN becomes 0: whoever draws
    from it ends the process on a GPU.
    """

    def __init__(self, remedy: str | None, sampled: bool) -> None:
        self.remedy = remedy
        self.sampled = sampled
        self.found: torch.Tensor | None = None
        """A truth value on the model's device; None: no logits yet."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return `scores` (rows, vocabulary)."""
        broken = scores.amax(dim=-1, keepdim=True).isnan()
        self.found = broken.any() if self.found is None else self.found | broken.any()
        return scores.masked_fill(broken, 0) if self.sampled else scores

    def check(self) -> None:
        """Raise UserError where there were any so far."""
        if self.found is not None and self.found:
            reason = "its weights are damaged"
            if self.remedy:
                reason += f", or its number format is too narrow for them; try {self.remedy}"
            raise UserError(f"the model's logits are not numbers: {reason}")
