"""One look at all rows: how long they are, which say the same as another, which have known defects."""

from array import array
from collections import Counter
from typing import NamedTuple

import numpy as np
from datasets import Dataset

from sft.data.fields.defects import defects_of, letters
from sft.data.rows import examples_of, names, number, numbers
from sft.system.texts import text
from sft.system.waiting import watched


class Survey(NamedTuple):
    """What all rows are like."""

    lengths: dict[str, np.ndarray]
    """Characters of instruction, input and output: an entry a row."""
    defects: Counter[str]
    """Rows by defect (see `sft.data.fields.defects`); a row may have several."""
    again: np.ndarray
    """Places of the rows that say the same as an earlier one, but for case, width, spaces and punctuation."""
    answered_otherwise: int
    """Rows that ask what another one asks, and are answered otherwise."""
    bare: np.ndarray
    """Places of the rows without a category in files of which other rows have one."""
    conversations: int
    """Rows with earlier turns."""
    several_systems: int
    """Rows with more than one system message."""


def survey(rows: Dataset) -> Survey:
    """Look at every row; 36 bytes a row are kept meanwhile."""
    lengths = {name: array("I") for name in ("instruction", "input", "output")}
    defects = Counter[str]()
    content, questions = array("Q"), array("Q")
    conversations = several_systems = 0
    for example in watched(examples_of(rows), text("rows.looking"), len(rows)):
        for name, found in lengths.items():
            found.append(len(getattr(example, name)))
        defects.update(defects_of(example.instruction, example.input, example.output))
        roles = [role for role, _ in example.history]
        conversations += "user" in roles
        several_systems += roles.count("system") > 1
        turns = [f"{letters(said)}\n" for _, said in example.history]
        question = f"{''.join(turns)}{letters(example.instruction)}\n{letters(example.input)}"
        questions.append(number(question))
        content.append(number(f"{question}\n{letters(example.output)}"))
    again = _repeated(np.frombuffer(content, np.uint64))
    several = len(content) - len(again) - len(np.unique(np.frombuffer(questions, np.uint64)))
    counted = {name: np.frombuffer(found, np.uint32) for name, found in lengths.items()}
    return Survey(counted, defects, again, several, _bare(rows), conversations, several_systems)


def _bare(rows: Dataset) -> np.ndarray:
    """The places of the rows without a category in files of which other rows have one."""
    category, categories = names(rows, "category")
    file = numbers(rows, "file")
    bare = category == (categories.index("") if "" in categories else len(categories))
    return np.flatnonzero(bare & np.isin(file, file[~bare]))


def _repeated(hashes: np.ndarray) -> np.ndarray:
    """The places of hashes that stand at an earlier place, too."""
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    return np.sort(order[same + 1])
