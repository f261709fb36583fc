"""The model card: what was trained on what, under which licences, how to ask it, how good it is, what it cannot do.

Its text is in card.md.jinja; here is what stands in its places.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment, StrictUndefined

from sft.config.repetition_penalty import MEASURED, PENALTY, SCOPE
from sft.config.sections import Config
from sft.export.licences import GEMMA_TERMS, licence_fields
from sft.export.source import CONTEXT, QUESTION, Source
from sft.prompt.chat_template import separator, user_message
from sft.run.manifest import FinishedManifest
from sft.system.visible import escaped, visible

HYPERPARAMETERS = (
    "num_train_epochs", "total_batch_size", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay",
    "optim", "max_length", "train_on_inputs", "seed",
)  # fmt: skip


def model_card(source: Source, checked: Sequence[str] = ()) -> str:
    """The card as Markdown with YAML front matter; `checked` are the lines of a merge's check."""
    request, config, manifest, template, _, settings, base, *_ = source
    jinja = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)
    jinja.filters |= {"escaped": escaped, "fenced": _fenced, "json": json.dumps, "repr": repr}
    message = user_message(template, QUESTION, CONTEXT)
    text = jinja.from_string(Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8")).render(
        source._asdict(),
        front_matter=_front_matter(source),
        adapter=request.kind == "adapter",
        model_id=request.push,
        local_name=" ".join(visible(base.name).replace("`", "'").split()),
        trained_from_directory=os.path.isabs(config.model.base),
        gemma_terms=GEMMA_TERMS,
        own_chat_template=template.special_tokens is not None,
        between=separator(template),
        message=message,
        prompt=template.render(QUESTION, CONTEXT),
        chat_request={
            "model": request.push or "MODEL",
            "messages": [{"role": "user", "content": message}],
            **({} if settings["do_sample"] else {"temperature": 0}),
            "max_tokens": settings["max_new_tokens"],
        },
        plain={key: value for key, value in settings.items() if key not in (PENALTY, SCOPE)},
        penalty=settings.get(PENALTY),
        spares_prompt=settings.get(SCOPE) == "generated",
        penalties_measured=MEASURED,
        trained_with=_trained_with(config, manifest),
        too_long=_too_long(manifest),
        checked=checked,
    )
    return str(ModelCard(text))


def _front_matter(source: Source) -> str:
    kind, base, data = source.request.kind, source.base, source.data
    return ModelCardData(
        language="ja",
        library_name="peft" if kind == "adapter" else "transformers",
        pipeline_tag="text-generation",
        base_model=base.hub_id,
        base_model_relation=(kind if kind == "adapter" else "finetune") if base.hub_id else None,
        datasets=[data.hub_id] if data.hub_id else None,
        tags=["lora", "sft", "instruction", "japanese"],
        **licence_fields(base.licence, data.licence),
    ).to_yaml()


def _trained_with(config: Config, manifest: FinishedManifest) -> dict[str, Any]:
    """The rows of the card's table of settings."""
    balance = config.data.balance
    return {
        "training rows": manifest.rows.train,
        "optimizer steps": manifest.steps,
        **{key: config.training[key] for key in HYPERPARAMETERS if config.training.get(key) is not None},
        **{f"lora.{key}": value for key, value in (config.lora or {}).items() if value is not None},
        "base weights while training": json.dumps(config.quantization or f"dtype {config.model.dtype}").strip('"'),
        "balance of categories": balance.model_dump_json(exclude_none=True) if balance else "none",
    }


def _too_long(manifest: FinishedManifest) -> str:
    """How many training rows lost something to the length limit."""
    fates = manifest.rows.truncation.values()
    lost = {fate: sum(counts.get(fate, 0) for counts in fates)
            for fate in ("context shortened", "end cut off", "dropped")}  # fmt: skip
    return ", ".join(f"{count} {fate}" for fate, count in lost.items() if count) or "none"


def _fenced(text: str, language: str = "") -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip(chr(10))}\n{fence}"
