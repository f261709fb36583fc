"""Evaluation: answers to held-out rows, scores by task category, and the report.

Everything downstream of `predictions.jsonl` runs without torch. The package shadows the builtin `eval`
only in a module that says `import eval`: use `from eval.x import y`.
"""
