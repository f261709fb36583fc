"""F1 of the bags of characters, as a module for `evaluate.load("eval/hf/character_f1_ja.py")`.

`evaluate` copies this file away before it imports it, so the project's root must be on the import path.
It takes the first of the file's classes for the metric, so the base class is reached through its module.
"""

from eval.hf import reference_metric
from eval.metrics.overlap import character_f1


class CharacterF1Ja(reference_metric.ReferenceMetric):
    """`eval.metrics.overlap.character_f1`."""

    function = staticmethod(character_f1)
