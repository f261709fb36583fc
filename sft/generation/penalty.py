"""A repetition penalty that knows the prompt from the answer."""

import torch
from transformers import LogitsProcessor

from sft.config.repetition_penalty import PenaltyScope


class ScopedRepetitionPenalty(LogitsProcessor):
    """Divides positive and multiplies negative scores of tokens that already occurred (CTRL, arXiv 1909.05858).

    transformers' own processor counts the whole prompt as having occurred, so an answer cannot quote its context
    freely, and in a left-padded batch it counts the padding too. Here padding never counts, and `scope` decides
    about the prompt.

    Args:
        penalty: above 1 discourages repetition, 1 changes nothing.
        scope: "generated" counts the answer's tokens only, "all" the prompt's too.
        prompt_mask: (prompts, prompt tokens), 1 for prompt tokens and 0 for padding. With beams or several
            answers a prompt, rows may be a multiple of the prompts.
    """

    def __init__(self, penalty: float, scope: PenaltyScope, prompt_mask: torch.Tensor) -> None:
        if penalty <= 0:
            raise ValueError(f"the repetition penalty must be above 0, not {penalty}")
        if not prompt_mask.any(dim=1).all():
            raise ValueError("every prompt needs a token that is not padding")
        self.penalty = float(penalty)
        self.scope = scope
        self.prompt_mask = prompt_mask.bool()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Penalise `scores` (rows, vocabulary) given `input_ids` (rows, prompt and answer tokens)."""
        copies, prompt_length = len(input_ids) // len(self.prompt_mask), self.prompt_mask.shape[1]
        occurred = input_ids[:, prompt_length:]
        if self.scope == "all":
            mask = self.prompt_mask.repeat_interleave(copies, dim=0)
            prompt = input_ids[:, :prompt_length]
            # Padding is replaced by a token that counts anyway.
            first = prompt.gather(1, mask.int().argmax(dim=1, keepdim=True))
            occurred = torch.cat([torch.where(mask, prompt, first), occurred], dim=1)
        # Only the scores of these few tokens are touched: a vocabulary has up to 262,000.
        found = scores.gather(1, occurred)
        return scores.scatter(1, occurred, torch.where(found < 0, found * self.penalty, found / self.penalty))

    def of_rows(self, rows: list[int]) -> "ScopedRepetitionPenalty":
        """The same for these rows of the batch, each as often as it is named."""
        return ScopedRepetitionPenalty(self.penalty, self.scope, self.prompt_mask[rows])
