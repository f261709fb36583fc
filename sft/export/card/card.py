"""The model card: what was trained on what, under which licences, how to ask it, how good it is, what it cannot do.

Its text is in card.en.md.jinja and card.ja.md.jinja, its code for both in code.jinja and request.jinja; here is what
stands in their places.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sft.config.repetition_penalty import MEASURED, PENALTY, SCOPE
from sft.config.sections import ModelSection
from sft.export.card.licences import licence_fields
from sft.export.source import CONTEXT, QUESTION, Source
from sft.generation.settings import STOP_STRINGS
from sft.model.adapter import read_config
from sft.model.families import TEXT_WEIGHTS
from sft.model.load import is_part_of_more
from sft.prompt.chat_template import message_layout, user_message
from sft.prompt.headings import stop_texts
from sft.prompt.row_encoder import FATES
from sft.run.directory import weights_directory
from sft.run.manifest import FinishedManifest
from sft.system.errors import UserError
from sft.system.texts import Count, Said, language, one_after_another, said
from sft.system.visible import escaped, visible

SHOWN = {"r", "lora_alpha", "target_modules", "use_rslora", "use_dora"}
"""What the card says of an adapter whose training nobody recorded."""


def model_card(source: Source, checked: Sequence[str] = ()) -> str:
    """The card as Markdown with YAML front matter, in the reader's language; `checked`, a merge's check, is English."""
    request, config, manifest, template, _, settings, base, *_ = source
    fates = manifest.rows.truncation.values() if manifest else ()
    lost = sum(map(Counter, fates), Counter())  # training rows, to the length limit
    stop_strings = settings.get(STOP_STRINGS, [])
    files = FileSystemLoader(Path(__file__).parent)
    jinja = Environment(
        loader=files, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    jinja.filters |= {"escaped": escaped, "fenced": _fenced, "json": json.dumps, "repr": repr}
    text = jinja.get_template(f"card.{language()}.md.jinja").render(
        source._asdict(),
        front_matter=_front_matter(source),
        local_name=" ".join(visible(base.name).replace("`", "'").split()),
        trained_from_directory=os.path.isabs(config.model.base),
        text_weights=TEXT_WEIGHTS if request.kind == "adapter" and _is_part_of_more(config.model, manifest) else None,
        stops=stop_texts(template) + ([stop_strings] if isinstance(stop_strings, str) else [*stop_strings]),
        layout=message_layout(template),
        message=user_message(template, QUESTION, CONTEXT),
        prompt=template.render(QUESTION, CONTEXT),
        plain={key: value for key, value in settings.items() if key not in (PENALTY, SCOPE, STOP_STRINGS)},
        penalties_measured=MEASURED,
        base_weights=json.dumps(config.quantization or f"dtype {config.model.dtype}").strip('"'),
        adapter_settings={} if manifest else read_config(weights_directory(request.run)).model_dump(include=SHOWN),
        too_long=_too_long(lost),
        checked=checked,
    )
    return str(ModelCard(text))


def _too_long(fates: Counter[str]) -> str:
    """What the length limit did to training rows."""
    words: dict[str, Said] = {
        "context shortened": said("card.shortened", rows=Count(fates["context shortened"])),
        "end cut off": said("card.cut", rows=Count(fates["end cut off"])),
        "dropped": said("card.dropped", rows=Count(fates["dropped"])),
    }
    return (one_after_another(words[fate] for fate in FATES[1:] if fates[fate]) or said("card.none")).here


def _is_part_of_more(section: ModelSection, manifest: FinishedManifest | None) -> bool:
    """Whether the card's code has to take the base out of a model of text and images.

    Raises UserError where the run did not record it and the base cannot be read.
    """
    if manifest and manifest.part_of_more is not None:
        return manifest.part_of_more
    try:
        return is_part_of_more(section.base, section.revision, section.trust_remote_code)
    except UserError as error:
        raise UserError(f"the card has to say how the base model is loaded, and nothing recorded it: {error}") from None


def _front_matter(source: Source) -> str:
    kind, base, data = source.request.kind, source.base, source.data
    return ModelCardData(
        language="ja" if source.manifest else None,
        library_name="peft" if kind == "adapter" else "transformers",
        pipeline_tag="text-generation",
        base_model=base.hub_id,
        base_model_relation=(kind if kind == "adapter" else "finetune") if base.hub_id else None,
        datasets=[data.hub_id] if data.hub_id else None,
        tags=["lora", "sft", "instruction", "japanese"] if source.manifest else ["lora"],
        **licence_fields(base.licence, data.licence),
    ).to_yaml()


def _fenced(text: str, language: str = "") -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip(chr(10))}\n{fence}"
