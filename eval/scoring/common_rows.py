"""Systems that were given different rows, over those that all of them answered. No torch here."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from eval.predictions import Prediction
from eval.scoring.rows import row_texts
from sft.system.errors import UserError
from sft.system.texts import Count, series, text
from sft.system.visible import counted


class Common(NamedTuple):
    """By system: its answers to the rows that all answered, in one order, and how many rows it has beside them."""

    answers: dict[str, list[Prediction]]
    alone: dict[str, int]


def in_words(rows: int, alone: Mapping[str, int]) -> str:
    """How many rows all answered, and how many of each system's were left out, in the reader's language."""
    left = series(text("compare.rows_of", rows=number, name=name) for name, number in alone.items() if number)
    if len(alone) == 2:
        found = text("compare.answered_by_both", rows=Count(rows))
        return text("compare.left_by_both", found=found, left=left) if left else found
    found = text("compare.answered_by_all", rows=Count(rows))
    return text("compare.left_by_all", found=found, left=left) if left else found


def common_rows(answers: Mapping[str, Sequence[Prediction]]) -> Common:
    """The answers of several systems, by name, to the rows that all of them answered.

    A row is the same where its texts are, whatever its id, category and group have become: those are the first
    system's in all that is returned. Raises UserError when there is no such row.
    """
    (first, own), *others = answers.items()
    found = {prediction.example.index: {first: prediction} for prediction in own}
    for name, given in others:
        same = _same_rows({index: by_name[first] for index, by_name in found.items()}, given)
        for index, prediction in same.items():
            found[index][name] = dataclasses.replace(prediction, example=found[index][first].example)
        found = {index: by_name for index, by_name in found.items() if name in by_name}
        if not found:
            raise UserError(
                f"{first} ({counted(len(own), 'row')}) and {name} ({counted(len(given), 'row')}) have no row in common "
                f"that {'both' if len(answers) == 2 else 'all'} answered; give them the same ones: "
                "python -m eval RUN eval.data=FILE"
            )
    kept = {name: [by_name[name] for by_name in found.values()] for name in answers}
    return Common(kept, {name: len(given) - len(found) for name, given in answers.items()})


def _same_rows(first: Mapping[str, Prediction], other: Sequence[Prediction]) -> dict[str, Prediction]:
    """The first's index → the other's answer to the same row. Of rows with the same texts, those of one id belong
    together; the rest are paired in the order of their ids.
    """
    by_index = {prediction.example.index: prediction for prediction in other}
    texts = {index: row_texts(prediction.example) for index, prediction in first.items()}
    found = {i: by_index[i] for i in first if i in by_index and row_texts(by_index[i].example) == texts[i]}
    left: dict[tuple, list[Prediction]] = {}
    for index in sorted(by_index.keys() - found.keys(), reverse=True):
        left.setdefault(row_texts(by_index[index].example), []).append(by_index[index])
    for index in sorted(first.keys() - found.keys()):
        if left.get(texts[index]):
            found[index] = left[texts[index]].pop()
    return found
