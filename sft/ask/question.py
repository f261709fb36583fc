"""One question to a finished run, its answer handed on as it is generated."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from sft.config.repetition_penalty import penalty_hazards
from sft.generation.answerer import Answerer, EncodedPrompt, load_answerer, open_run
from sft.generation.generate import Answer
from sft.generation.settings import effective_settings
from sft.generation.streamer import CharacterStreamer
from sft.prompt.encode import eos_id
from sft.system.errors import UserError, say, warn
from sft.system.texts import text
from sft.system.visible import counted, visible


def load(
    run: Path, overrides: Sequence[str], allow_other_template: bool, base: bool, checkpoint: int | None
) -> Answerer:
    """Load a finished run, or a checkpoint of it, and say which one it is and how it will answer."""
    answerer = load_answerer(open_run(run, overrides, allow_other_template, checkpoint))
    which = " (base model alone)" if base else f" (checkpoint {checkpoint})" if checkpoint is not None else ""
    say(f"{run}{which}: {settings_line(answerer.generation)}", sys.stderr)
    return answerer


def settings_line(generation: Mapping[str, Any]) -> str:
    """The settings that take effect, on one line."""
    return ", ".join(f"{key} {value}" for key, value in effective_settings(generation).items())


def ask(answerer: Answerer, instruction: str, context: str, warned: set[str]) -> None:
    """Stream the answer to one question to standard output, after warnings that are not among those `warned` of."""
    prompt = answerer.prompt(instruction, context)
    warn_of(answerer, prompt, context, answerer.generation, warned)
    answer = stream(answerer, prompt, answerer.generation, lambda text: print(text, end="", flush=True))
    print()
    if answer.finish_reason == "length":
        limit = answerer.generation["max_new_tokens"]
        print(
            f"note: cut off after {counted(limit, 'token')}; raise generation.max_new_tokens for more", file=sys.stderr
        )


def ask_both(answerer: Answerer, instruction: str, context: str) -> None:
    """Print a question and its context, and the base model's and the tuned model's answers side by side."""
    prompt = answerer.prompt(instruction, context)
    warn_of(answerer, prompt, context, answerer.generation, set())
    answers = []
    for system in ("base", "tuned"):
        with answerer.as_system(system):
            answers.append(Text(visible(answerer.answer(prompt.ids).text) or text("ask.empty")))
    console = Console()
    console.print(Text(text("ask.question_title") + f": {visible(instruction)}"))
    if context:
        console.print(Text(text("ask.context_title") + f": {visible(context)}"))
    # What is not folded ends where the column does, and Japanese has no spaces to break at.
    columns = [Column(text(f"ask.{system}"), ratio=1, overflow="fold") for system in ("base", "tuned")]
    table = Table(*columns, expand=True)
    table.add_row(*answers)
    console.print(table)


def warn_of(
    answerer: Answerer, prompt: EncodedPrompt, context: str, generation: Mapping[str, Any], warned: set[str]
) -> None:
    """Warn of what settings do to this question, each once, and say where the model does not see all of it."""
    warnings = penalty_hazards(generation, [context], [prompt.ids], eos_id(answerer.tokenizer))
    warn(warning for warning in warnings if warning not in warned)
    warned.update(warnings)
    if prompt.context_shortened:
        print("note: the context is longer than the model's input; its end is left out", file=sys.stderr)


def stream(
    answerer: Answerer,
    prompt: EncodedPrompt,
    generation: Mapping[str, Any],
    write: Callable[[str], object],
    stopped: Callable[[], bool] | None = None,
) -> Answer:
    """The answer to an encoded question; `write` gets its text, made visible, as it is generated.

    Where `stopped` says so, the answer is what there is of it.

    Raises UserError where the GPU's memory does not suffice.
    """
    streamer = CharacterStreamer(answerer.tokenizer, write, answerer.ends(generation))
    try:
        answer = answerer.answer(prompt.ids, streamer, generation, stopped)
    except torch.OutOfMemoryError:
        remedy = "shorten the question or its context, or lower generation.max_new_tokens"
        raise UserError(f"the GPU's memory does not suffice for this answer; {remedy}") from None
    if not streamer.written:  # beams end before they can be streamed
        write(visible(answer.text))
    return answer
