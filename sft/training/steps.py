"""What an optimizer step is made of: which rows, on which process, in which micro-batches, packed or padded.

All of a step's micro-batches on one process are one batch of the data loader, so that a step holds exactly its rows,
however many processes share them and however many bins they fill.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from sft.model.attention.shared_prefix import Document, add_prefixes, documents_of
from sft.model.loss import supervised_positions
from sft.plan.prepare import optimizer_steps
from sft.prompt.encoded_rows import IGNORE_INDEX

Divide = Callable[[Sequence[int], int], list[list[int]]]
"""Lengths of rows, number of processes → the rows' positions by micro-batch; as many for each process."""


def packed(lengths: Sequence[int], processes: int, capacity: int) -> list[list[int]]:
    """Bins of at most `capacity` tokens, as few as it takes and equally full: each row goes, longest first, into the
    emptiest one.

    Their number is a multiple of `processes`, so that no process waits for another; a bin may be empty where there
    are fewer rows. No row may be longer than `capacity`.
    """
    order = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    count = max(1, math.ceil(sum(lengths) / capacity / processes)) * processes
    while True:
        bins: list[list[int]] = [[] for _ in range(count)]
        tokens = [0] * count
        for position in order:
            emptiest = tokens.index(min(tokens))
            bins[emptiest].append(position)
            tokens[emptiest] += lengths[position]
        if max(tokens) <= capacity:
            return bins
        if count > len(lengths) + processes:
            raise ValueError(f"a row of {max(lengths)} tokens does not fit a bin of {capacity}")
        count += processes


def padded(lengths: Sequence[int], processes: int, rows: int) -> list[list[int]]:
    """Micro-batches of at most `rows` rows of similar length, longest first, so that little is padding.

    Their number is a multiple of `processes`; the last ones may be empty.
    """
    order = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    groups = [order[start : start + rows] for start in range(0, len(order), rows)]
    return groups + [[] for _ in range(-len(groups) % processes)]


@dataclasses.dataclass(eq=False)
class StepSampler(Sampler[list[list[int]]]):
    """One process's micro-batches of each optimizer step of an epoch, as lists of row numbers.

    The rows of a step are those of a seeded shuffle; the last step of an epoch is smaller, and no row comes twice.
    The order depends on seed and epoch alone, and the epoch on the optimizer steps done, so that a resumed run meets
    the same steps on any number of processes.
    """

    lengths: Sequence[int]
    """Tokens of each row."""
    step_rows: int
    """Rows an optimizer step, over all processes."""
    divide: Divide
    """Makes micro-batches of a step's rows; each process takes every `processes`-th of them."""
    seed: int
    """Of the shuffle."""
    steps_done: Callable[[], int]
    """Tells the optimizer steps done so far, when an epoch begins."""
    process: int = 0
    """This process's number, from 0."""
    processes: int = 1

    def __iter__(self) -> Iterator[list[list[int]]]:
        for step in self._steps(self.steps_done() // len(self)):
            rows = step.tolist()
            micro_batches = self.divide([self.lengths[row] for row in rows], self.processes)
            yield [[rows[position] for position in mine] for mine in micro_batches[self.process :: self.processes]]

    def __len__(self) -> int:
        return optimizer_steps(len(self.lengths), self.step_rows, 1)

    def _steps(self, epoch: int) -> tuple[torch.Tensor, ...]:
        """The rows of each step of an epoch."""
        order = torch.randperm(len(self.lengths), generator=torch.Generator().manual_seed(self.seed + epoch))
        return order.split(self.step_rows)

    def tokens_by_step(self, steps: int) -> list[int]:
        """The tokens, of all processes, in each of the training's first `steps` steps."""
        lengths = torch.tensor([*self.lengths])
        epochs = range(-(-steps // len(self)))
        return [int(lengths[rows].sum()) for epoch in epochs for rows in self._steps(epoch)][:steps]


class MicroBatches(Dataset[list[dict[str, Any]]]):
    """Encoded rows by micro-batch: the index of an item is a list of row numbers."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows.select_columns(["index", "input_ids", "labels"])

    def __getitem__(self, numbers: list[int]) -> list[dict[str, Any]]:
        return self.rows.__getitems__(numbers)

    def __len__(self) -> int:
        return len(self.rows)


@dataclasses.dataclass
class StepCollator:
    """Makes a step's batch: the tensors of each micro-batch, the indexes of its rows, and the tokens in all of them.

    What a micro-batch's tensors are asked for, they are asked here, on the CPU: later a GPU would be waited for.
    `nll_positions` is where a label comes next (see `add_token_nll`), `label_copies`, (supervised tokens,), how many
    rows have it, and `document_lengths` what packed documents are long.
    """

    collate: Callable[[list[dict[str, list[int]]]], dict[str, Any]]
    """Makes one micro-batch of rows, packed or padded."""
    filler_id: int
    """The token of a micro-batch without rows. Such a one teaches nothing and is there because processes that share
    gradients must go through the model equally often."""
    multiple: int = 1
    """Rows are followed by one of filler where a micro-batch's tokens would not be a multiple of this. Libraries
    compile and keep kernels for each size they meet."""
    share_prefixes: bool = False
    """Whether rows that begin alike share that beginning."""

    def __call__(self, micro_batches: list[list[dict[str, Any]]]) -> dict[str, Any]:
        return {
            "rows": [[row["index"] for row in rows] for rows in micro_batches],
            "micro_batches": [self._micro_batch(rows) for rows in micro_batches],
            "tokens": sum(len(row["input_ids"]) for rows in micro_batches for row in rows),
        }

    def _micro_batch(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        labelled = [list(zip(row["input_ids"], row["labels"], strict=True)) for row in rows]
        documents = documents_of(labelled) if self.share_prefixes else [Document(tokens) for tokens in labelled]
        tokens = sum(len(document.tokens) for document in documents)
        missing = -tokens % self.multiple if rows else self.multiple
        if missing:
            documents.append(Document([(self.filler_id, IGNORE_INDEX)] * missing))
        batch = self.collate(
            [{"input_ids": [i for i, _ in d.tokens], "labels": [label for _, label in d.tokens]} for d in documents]
        )
        batch["nll_positions"] = supervised_positions(batch["labels"])
        batch["label_copies"] = torch.ones_like(batch["nll_positions"])
        if "position_ids" in batch:  # packed
            lengths = [len(document.tokens) for document in documents]
            copies = torch.tensor([document.copies for document in documents]).repeat_interleave(torch.tensor(lengths))
            batch["label_copies"] = copies[batch["nll_positions"] + 1]
            batch["document_lengths"] = lengths
        if any(document.prefix is not None for document in documents):
            add_prefixes(batch, documents)
        return batch
