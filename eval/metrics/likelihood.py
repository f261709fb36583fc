"""How likely a model finds the reference, whatever it would answer itself. No torch here."""

import math


def reference_bits_per_character(nll: float | None, reference: str) -> float | None:
    """Surprise of the model at the reference: NLL / (ln 2 · characters of the reference), bits, ≥ 0.

    `nll` is Σ −ln p over the reference's tokens, in nats. Comparable between tokenizers because it is per
    character. Lower is better. None when `nll` was not measured or is not finite, or the reference is empty.
    """
    if nll is None or not math.isfinite(nll) or not reference:
        return None
    return nll / (math.log(2) * len(reference))


def context_gain(without: float | None, given: float | None, reference: str) -> float | None:
    """What the context is worth to the model: (NLL without it − NLL with it) / (ln 2 · characters), bits.

    Both NLLs are Σ −ln p over the reference's tokens in nats, given the question alone and given question and
    context. Nothing is generated, so no decoding setting can change it. Above 0 the context makes the reference
    more likely; about 0 the model does not use it. None as in `reference_bits_per_character`.
    """
    bits = [reference_bits_per_character(nll, reference) for nll in (without, given)]
    return None if bits[0] is None or bits[1] is None else bits[0] - bits[1]
