"""ROUGE-L F measure on MeCab tokens, as a module for `evaluate.load("eval/hf/rouge_l_ja.py")`.

`evaluate` copies this file away before it imports it, so the project's root must be on the import path.
It takes the first of the file's classes for the metric, so the base class is reached through its module.
"""

from eval.hf import reference_metric
from eval.metrics.overlap import rouge_l


class RougeLJa(reference_metric.ReferenceMetric):
    """`eval.metrics.overlap.rouge_l`."""

    function = staticmethod(rouge_l)
