"""The model card: what was trained on what, under which licences, how to ask it, how good it is, what it cannot do.

Its text is in card.md.jinja; here is what stands in its places.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment, StrictUndefined

from sft.config.repetition_penalty import MEASURED, PENALTY, SCOPE
from sft.config.sections import ModelSection
from sft.export.licences import licence_fields
from sft.export.source import CONTEXT, QUESTION, Source
from sft.generation.settings import STOP_STRINGS
from sft.model.families import TEXT_WEIGHTS
from sft.model.load import is_part_of_more
from sft.prompt.chat_template import separator, user_message
from sft.prompt.row_encoder import FATES
from sft.system.errors import UserError
from sft.system.visible import escaped, visible


def model_card(source: Source, checked: Sequence[str] = ()) -> str:
    """The card as Markdown with YAML front matter; `checked` are the lines of a merge's check."""
    _, config, manifest, template, _, settings, base, *_ = source
    lost = sum(map(Counter, manifest.rows.truncation.values()), Counter())  # training rows, to the length limit
    jinja = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)
    jinja.filters |= {"escaped": escaped, "fenced": _fenced, "json": json.dumps, "repr": repr}
    text = jinja.from_string(Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8")).render(
        source._asdict(),
        front_matter=_front_matter(source),
        local_name=" ".join(visible(base.name).replace("`", "'").split()),
        trained_from_directory=os.path.isabs(config.model.base),
        text_weights=TEXT_WEIGHTS if _is_part_of_more(config.model) else None,
        between=separator(template),
        message=user_message(template, QUESTION, CONTEXT),
        prompt=template.render(QUESTION, CONTEXT),
        plain={key: value for key, value in settings.items() if key not in (PENALTY, SCOPE, STOP_STRINGS)},
        penalties_measured=MEASURED,
        base_weights=json.dumps(config.quantization or f"dtype {config.model.dtype}").strip('"'),
        too_long=", ".join(f"{lost[fate]} {fate}" for fate in FATES[1:] if lost[fate]) or "none",
        checked=checked,
    )
    return str(ModelCard(text))


def _is_part_of_more(section: ModelSection) -> bool:
    try:
        return is_part_of_more(section.base, section.revision, section.trust_remote_code)
    except UserError:  # an adapter is exported without its base, too
        return False


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


def _fenced(text: str, language: str = "") -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip(chr(10))}\n{fence}"
