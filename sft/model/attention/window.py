"""What a sliding window hides."""

import torch


def window_mask(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """(tokens, tokens), true where a token sees another, itself and those before it as far as the window reaches.

    None where the causal order alone decides: without a window, or within one.
    """
    if window is None or length <= window:
        return None
    return torch.ones(length, length, dtype=torch.bool, device=device).tril_().triu_(1 - window)
