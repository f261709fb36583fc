"""One question to a finished run, its answer streamed to standard output."""

import sys
from collections.abc import Sequence
from pathlib import Path

from sft.config.repetition_penalty import penalty_hazards
from sft.generation.answerer import Answerer, load_answerer, open_run
from sft.generation.settings import effective_settings
from sft.generation.streamer import CharacterStreamer
from sft.prompt.encode import eos_id
from sft.system.errors import say, warn
from sft.system.visible import counted, visible


def load(
    run: Path, overrides: Sequence[str], allow_other_template: bool, base: bool, checkpoint: int | None
) -> Answerer:
    """Load a finished run, or a checkpoint of it, and say which one it is and how it will answer."""
    answerer = load_answerer(open_run(run, overrides, allow_other_template, checkpoint))
    settings = ", ".join(f"{key} {value}" for key, value in effective_settings(answerer.generation).items())
    which = " (base model alone)" if base else f" (checkpoint {checkpoint})" if checkpoint is not None else ""
    say(f"{run}{which}: {settings}", sys.stderr)
    return answerer


def ask(answerer: Answerer, instruction: str, context: str, warned: set[str]) -> None:
    """Stream the answer to one question to standard output, after warnings that are not among those `warned` of."""
    prompt = answerer.prompt(instruction, context)
    warnings = penalty_hazards(answerer.generation, [context], [prompt.ids], eos_id(answerer.tokenizer))
    warn(warning for warning in warnings if warning not in warned)
    warned.update(warnings)
    if prompt.context_shortened:
        print("note: the context is longer than the model's input; its end is left out", file=sys.stderr)
    streamer = CharacterStreamer(answerer.tokenizer, lambda text: print(text, end="", flush=True), answerer.ends)
    answer = answerer.answer(prompt.ids, streamer)
    print("" if streamer.written else visible(answer.text))  # beams end before they can be streamed
    if answer.finish_reason == "length":
        limit = answerer.generation["max_new_tokens"]
        print(
            f"note: cut off after {counted(limit, 'token')}; raise generation.max_new_tokens for more", file=sys.stderr
        )
