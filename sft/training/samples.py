"""The same few validation questions, answered at every validation: what a training learns, in answers."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.cells import cell_len
from tqdm import tqdm
from transformers import TrainerCallback

from sft.config.sections import Config
from sft.data.records import GROUPS, Example
from sft.data.rows import examples_of, of_group
from sft.data.split import hash_order
from sft.generation.answerer import Answerer
from sft.plan.prepare import Plan
from sft.system.errors import UserError, say, warn
from sft.system.processes import RANK, divided_by
from sft.system.visible import narrow
from sft.training.log import add_lines, keep_until
from sft.training.stopping import random_states, restore_random

NO_TERMINAL_COLUMNS = 120
"""How wide a line is where nobody knows the terminal's width."""

Report = Callable[[int, list[dict[str, Any]]], None]
"""Is told a step and its answers, as `samples.jsonl` has them."""


class Question(NamedTuple):
    """A validation row to be asked, and its prompt."""

    example: Example
    prompt: list[int]


class SampleAnswers(TrainerCallback):
    """Asks the model `questions` at every validation, and adds its answers to the JSON lines in `path`.

    One process does, with its own copy of the model; the others wait. An answer that fails, for want of memory or of
    finite numbers, is a warning, and the training goes on. Of random states and the model's mode nothing is changed.
    """

    def __init__(self, answerer: Answerer, questions: Sequence[Question], path: Path, report: Report) -> None:
        self.answerer = answerer
        self.questions = questions
        self.path = path
        self.report = report

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forget the answers of steps that a resumed run does again."""
        if state.is_world_process_zero:
            keep_until(self.path, state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Answer, keep and show."""
        if not state.is_world_process_zero:
            return
        states, was_training = random_states(), self.answerer.model.training
        self.answerer.model.eval()
        try:
            found = list(self._answers(state.global_step))
        except (UserError, torch.OutOfMemoryError) as error:
            reason = error if isinstance(error, UserError) else "the GPU's memory does not suffice for them"
            warn([f"step {state.global_step}: no sample answers: {reason}; training.samples=0 asks for none"])
            return
        finally:
            self.answerer.model.train(was_training)
            restore_random(states)
        add_lines(self.path, found)
        for line in lines(found):
            tqdm.write(line)
        self.report(state.global_step, found)

    def _answers(self, step: int) -> Iterator[dict[str, Any]]:
        answers: dict[int, Any] = {}
        prompts = [question.prompt for question in self.questions]
        for _, place, answer in self.answerer.answer_all(prompts, None, [0] * len(prompts)):
            answers[place] = answer
        for place, (example, _) in enumerate(self.questions):
            yield {
                "step": step,
                "row": example.named,
                "index": example.index,
                "group": example.group,
                "question": example.instruction,
                "context": example.input,
                "reference": example.output,
                "answer": answers[place].text,
                "finish_reason": answers[place].finish_reason,
            }


def sample_answers(config: Config, plan: Plan, model: Any, report: Report) -> SampleAnswers | None:
    """The questions that `training.samples` asks for, ready to be asked; None where there are none.

    Where the launcher divides the weights nobody asks, and a line says so. Answers are those of `infer.py` at
    temperature 0, from a batch of at most as many tokens as one row may have, so that they need no more memory than a
    step does. Raises UserError where generation.max_new_tokens leaves no room for a question.
    """
    if not config.training["samples"] or not plan.validation or config.training["eval_strategy"] == "no":
        return None
    if divided_by():
        if RANK == 0:
            say("no sample answers: the weights are divided among the processes, and no one of them can answer")
        return None
    greedy = config.generation | {"temperature": 0.0, "use_cache": True}  # the trainer turns the model's own cache off
    budget = config.eval.model_copy(update={"batch_tokens": config.training["max_length"]})
    asked = config.model_copy(update={"generation": greedy, "eval": budget})
    answerer = Answerer(config.run_directory, asked, model, plan.tokenizer, plan.template, {}, "")
    questions = [
        question
        for group in GROUPS
        for question in _first(answerer, of_group(plan.split.validation, group), config.training["samples"])
    ]
    return SampleAnswers(answerer, questions, config.run_directory / "samples.jsonl", report)


def _first(answerer: Answerer, rows: Any, count: int) -> Iterator[Question]:
    """The first rows, in the order of a hash, whose whole question fits."""
    for example in examples_of(hash_order(rows)) if rows else ():
        if not count:
            return
        try:
            prompt = answerer.prompt(example.instruction, example.input, history=example.history)
        except UserError:
            continue
        if not prompt.context_shortened:
            count -= 1
            yield Question(example, prompt.ids)


def lines(answers: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What the terminal shows of a step's answers: two lines each, cut where they would not fit."""
    columns = shutil.get_terminal_size((NO_TERMINAL_COLUMNS, 0)).columns - 1
    for one in answers:
        asked = f"step {one['step']:>5}  {one['group']}, {narrow(one['row'], columns // 3)}: "
        ended = "" if one["finish_reason"] == "eos" else f"  [{one['finish_reason']}]"
        yield f"{asked}{narrow(one['question'], columns - cell_len(asked))}"
        yield f"            → {narrow(one['answer'], columns - 14 - len(ended))}{ended}"
