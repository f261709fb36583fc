"""What a training says while it runs: a bar, a line a logged step, and the same as JSON lines in log.jsonl."""

import json
from pathlib import Path

from sft.system.errors import warn


def warn_of_loss(log: Path) -> None:
    """Print a warning where the loss at the end of a run's log is not below the one at its beginning (a tenth each)."""
    records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    if len(losses) < 2:
        return
    tenth = -(-len(losses) // 10)
    first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
    if not last < first:
        warn(
            [
                f"the loss did not fall ({first:.3f} at first, {last:.3f} at last): the model may have learned "
                "nothing; look at loss.png, and at training.learning_rate"
            ]
        )
