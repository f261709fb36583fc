"""A finished run, and what of it goes into an export."""

import re
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from sft.config.load import load_config
from sft.config.sections import Config
from sft.export.licences import Base, Data, named_base, named_data
from sft.export.request import Request
from sft.export.scores import Evaluation, read_evaluation
from sft.export.upload import check_hub_id
from sft.generation.generate import library_config
from sft.generation.settings import effective_settings
from sft.model.adapter import check_adapter, check_trained_on
from sft.model.load import load_tokenizer
from sft.prompt.chat_template import set_chat_template
from sft.prompt.template import PromptTemplate
from sft.run.directory import check_learned, require_finished, run_config
from sft.run.manifest import FinishedManifest
from sft.system.errors import UserError

CHANGEABLE = ("model.base=", "model.trust_remote_code=", "model.device=", "model.dtype=", "data.path=", "generation.")
QUESTION = "この図書館は、水曜日は何時に閉まりますか。"
CONTEXT = "みなと町図書館は、火曜日から金曜日までは午前9時から午後8時まで開いています。月曜日は休館日です。"
"""What the model card asks."""


class Source(NamedTuple):
    """What an export is made of, but for the weights."""

    request: Request
    config: Config
    manifest: FinishedManifest
    template: PromptTemplate
    tokenizer: PreTrainedTokenizerBase
    settings: dict[str, Any]
    """The generation settings that take effect."""
    base: Base
    data: Data
    evaluation: Evaluation | None
    """None: the run was not evaluated."""


def read_source(request: Request) -> Source:
    """Read what is exported, without any weights. Raises UserError for a run that cannot be."""
    run, adapter = request.run, request.run / "adapter"
    manifest = require_finished(run)
    for override in request.overrides:
        if not override.startswith(CHANGEABLE):
            raise UserError(f"command line: {override}: the training settled it; export can change {CHANGEABLE}")
    config = run_config(run, request.overrides)
    if config.lora is None:
        raise UserError(
            f"{run}: all weights were trained, and there is no adapter to export: {run / 'model'} is the model"
        )
    settings = effective_settings(config.generation)
    library_config(settings)
    check_learned(run, manifest)
    check_adapter(adapter)
    check_trained_on(adapter, load_config(run / "config.yaml", to_train=False).model.base)
    template = PromptTemplate.load(adapter)
    tokenizer = load_tokenizer(str(adapter), trust_remote_code=config.model.trust_remote_code)
    set_chat_template(tokenizer, template, [{"instruction": QUESTION, "input": text} for text in ("", CONTEXT)])
    base, data = named_base(config, manifest, request.base_id), named_data(config, manifest, request.data_license)
    for key, name in (("model.base", base.hub_id), ("data.path", data.hub_id)):
        if name:  # it becomes links and code in the card
            check_hub_id(key, name)
    if base.commit and not re.fullmatch(r"[\w./-]+", base.commit):
        raise UserError(f"model.revision {base.commit}: is not the name of a commit, tag or branch")
    return Source(request, config, manifest, template, tokenizer, settings, base, data, read_evaluation(run, manifest))
