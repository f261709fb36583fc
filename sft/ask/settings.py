"""Generation settings of one person: others who ask the same model at the same time have their own."""

from collections.abc import Sequence
from typing import Any

from sft.generation.answerer import Answerer
from sft.generation.generate import library_config
from sft.generation.settings import effective_settings
from sft.run.directory import run_config
from sft.system.errors import UserError


def changed(answerer: Answerer, words: Sequence[str]) -> dict[str, Any]:
    """The run's generation settings with `words` (`generation.key=value`) on top, checked as the configuration is.

    Raises UserError for unknown keys, wrong values, and answers that leave no room for a prompt.
    """
    try:
        generation = run_config(answerer.run, words).generation
    except UserError as error:
        raise UserError(str(error).removeprefix("command line: ")) from None
    library_config(effective_settings(generation))
    answerer.check_room(generation["max_new_tokens"])
    return generation
