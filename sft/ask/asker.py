"""One model for several people: it answers one question at a time, and everybody stops only their own."""

import dataclasses
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sft.ask.question import stream
from sft.ask.settings import changed
from sft.config.repetition_penalty import penalty_hazards
from sft.generation.answerer import Answerer, EncodedPrompt
from sft.generation.generate import Answer
from sft.prompt.encode import eos_id
from sft.system.errors import UserError

PAUSE = 0.1
"""Seconds between two looks at an answer that grows."""


class Question(NamedTuple):
    """What somebody asks, of which models ("tuned", "base"), under which settings (`generation.key=value`)."""

    instruction: str
    context: str
    systems: Sequence[str]
    settings: Sequence[str] = ()


class Grown(NamedTuple):
    """One model's answer so far; `ended` says why there is no more ("stopped" among the reasons), None: it grows."""

    system: str
    text: str
    ended: str | None = None
    hints: Sequence[str] = ()
    """What settings do to this question, and what the model does not see of it."""


@dataclasses.dataclass
class Asker:
    """A loaded run that several people ask; `overrides` are those that it was loaded with."""

    answerer: Answerer
    overrides: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._alone = threading.Lock()
        self._stops: dict[str, threading.Event] = {}

    def begin(self, person: str) -> None:
        """Somebody is about to ask; what they asked before is stopped."""
        self.stop(person)
        self._stops[person] = threading.Event()

    def stop(self, person: str) -> None:
        """Stop what this person asked, at work or waiting; nothing of others."""
        if person in self._stops:
            self._stops[person].set()

    def leave(self, person: str) -> None:
        """Somebody closed the page."""
        self.stop(person)
        self._stops.pop(person, None)

    def answers(self, person: str, question: Question) -> Iterator[Grown]:
        """The answers of one model after the other, as they grow. Raises UserError for what cannot be asked."""
        stop = self._stops.setdefault(person, threading.Event())
        if not question.instruction.strip():
            raise UserError("the question is empty")
        generation = changed(self.answerer, [*self.overrides, *question.settings])
        context = question.context.strip()
        prompt = self.answerer.prompt(question.instruction.strip(), context, generation["max_new_tokens"])
        hints = penalty_hazards(generation, [context], [prompt.ids], eos_id(self.answerer.tokenizer))
        if prompt.context_shortened:
            hints.append("the context is longer than the model's input; its end is left out")
        for system in question.systems:
            if not stop.is_set():
                for grown in self._grown(system, prompt, generation, stop):
                    yield grown._replace(hints=hints)

    def _grown(
        self, system: str, prompt: EncodedPrompt, generation: dict[str, Any], stop: threading.Event
    ) -> Iterator[Grown]:
        """One answer, which a thread of its own generates; when nobody looks any more, it is stopped."""
        found: queue.Queue[str | Answer | BaseException] = queue.Queue()

        def work() -> None:
            try:
                with self._alone, self.answerer.as_system(system):
                    found.put(stream(self.answerer, prompt, generation, found.put, stop.is_set))
            except BaseException as error:
                found.put(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        text = ""
        try:
            while True:
                piece = found.get()
                if isinstance(piece, BaseException):
                    raise piece
                if isinstance(piece, Answer):
                    stopped = stop.is_set() and piece.finish_reason == "length"
                    yield Grown(system, text, "stopped" if stopped else piece.finish_reason)
                    return
                text += piece
                if found.empty():
                    yield Grown(system, text)
                    stop.wait(PAUSE)
        except GeneratorExit:
            stop.set()
            raise
        finally:
            thread.join()
