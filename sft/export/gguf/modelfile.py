"""Ollama's Modelfile: the prompt as a template of Go's, where answers end, and the run's decoding."""

import json
import re
import string
from pathlib import Path
from typing import Any

from sft.export.source import Source
from sft.prompt.chat_template import as_parts
from sft.prompt.headings import stop_texts

THEIR_DEFAULTS = {"top_k": 50, "top_p": 1.0}
"""transformers' values of what Ollama has others for (40 and .9)."""
SAMPLING = ("top_k", "top_p", "min_p")


def modelfile(source: Source, weights: str) -> str:
    """The Modelfile of a merged run's GGUF file, called `weights`, which is beside it."""
    lines = [f"FROM ./{weights}"]
    if source.template.special_tokens is None:
        lines.append(f'TEMPLATE """{go_template(source)}"""')
    else:
        lines.append("# No TEMPLATE: Ollama recognises common chat templates by the file; ollama show --template NAME")
    lines += [f"PARAMETER {name} {value}" for name, value in parameters(source).items()]
    stops = [*stop_texts(source.template), *_listed(source.settings.get("stop_strings"))]
    lines += [f'PARAMETER stop """{stop}"""' for stop in stops]
    return "\n".join(lines) + "\n"


def parameters(source: Source) -> dict[str, Any]:
    """The run's decoding in Ollama's words, without a penalty: Ollama's own is 1.1 and counts the question, too."""
    settings = source.settings
    sampled = {key: settings.get(key, THEIR_DEFAULTS.get(key)) for key in SAMPLING} if settings["do_sample"] else {}
    return {
        "temperature": settings["temperature"] if settings["do_sample"] else 0,
        **{key: value for key, value in sampled.items() if value is not None},
        "repeat_penalty": 1.0,
        "num_predict": settings["max_new_tokens"],
        # Ollama drops of longer conversations, in silence: room for the longest prompt of the training, and an answer.
        "num_ctx": source.config.training["max_length"] + settings["max_new_tokens"],
    }


def go_template(source: Source) -> str:
    """The chat template of a text prompt in Go's language, which Ollama renders, without the BOS that it puts there.

    Go's has no way to look for a text in another; a template that calls itself with all but the first byte is one.
    """
    parts = as_parts(source.template)
    message = [{"role": "user", "content": "問"}]
    rendered = source.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    opening = rendered.removesuffix(source.template.render("問")).removeprefix(source.tokenizer.bos_token or "")
    texts = {name: _quoted(text) for name, text in (*parts._asdict().items(), ("opening", opening))}
    go = string.Template(Path(__file__).with_name("ollama.gotmpl").read_text(encoding="utf-8"))
    return go.substitute(texts, bytes=len(parts.between.encode())).rstrip("\n")


def _quoted(text: str) -> str:
    """A string of Go's. What is not printed is escaped: Ollama leaves it out of a Modelfile."""
    return re.sub(r"[^\n -~]", lambda c: c[0] if c[0].isprintable() else json.dumps(c[0])[1:-1],
                  json.dumps(text, ensure_ascii=False))  # fmt: skip


def _listed(stops: str | list[str] | None) -> list[str]:
    return [stops] if isinstance(stops, str) else list(stops or ())
