"""A finished run, and what of it goes into an export."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from sft.config.sections import Config
from sft.export.card.licences import Base, Data, named_base, named_data
from sft.export.card.scores import Evaluation, read_evaluation
from sft.export.request import NOT_ON_HUB, Request
from sft.export.upload import check_hub_id
from sft.generation.generate import library_config
from sft.generation.settings import effective_settings
from sft.model.adapter import check_adapter
from sft.prompt.chat_template import set_chat_template
from sft.prompt.template import FILE_NAME, PromptTemplate
from sft.run.directory import require_usable, run_config
from sft.run.manifest import FinishedManifest
from sft.run.trained import read_trained
from sft.system.errors import UserError

CHANGEABLE = ("model.base=", "model.trust_remote_code=", "model.device=", "model.dtype=", "data.path=", "generation.")
QUESTION = "この図書館は、水曜日は何時に閉まりますか。"
CONTEXT = "みなと町図書館は、火曜日から金曜日までは午前9時から午後8時まで開いています。月曜日は休館日です。"
"""What the model card asks."""


class Source(NamedTuple):
    """What an export is made of, but for the weights."""

    request: Request
    config: Config
    manifest: FinishedManifest | None
    """None: an adapter without its run, of whose training nothing is known."""
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
    run = request.run
    manifest = require_usable(run)
    changeable = CHANGEABLE if manifest else _changeable_without_run(run)
    for override in request.overrides:
        if not override.startswith(changeable):
            allowed = ", ".join(f"{key}…" for key in changeable)
            raise UserError(f"command line: {override}: the training settled it; export can change {allowed}")
    config = run_config(run, request.overrides)
    if config.lora is None:
        raise UserError(
            f"{run}: all weights were trained, and there is no adapter to export: {run / 'model'} is the model"
        )
    settings = effective_settings(config.generation)
    library_config(settings)
    trained = read_trained(run, request.overrides)
    template, tokenizer = trained.template, trained.tokenizer
    check_adapter(trained.weights)
    set_chat_template(tokenizer, template, [{"instruction": QUESTION, "input": text} for text in ("", CONTEXT)])
    base, data = named_base(config, manifest, request.base_id), named_data(config, manifest, request.data_license)
    for key, name in (("model.base", base.hub_id), ("data.path", data.hub_id)):
        if name:  # it becomes links and code in the card
            check_hub_id(key, name)
    if base.commit and not re.fullmatch(r"[\w./-]+", base.commit):
        raise UserError(f"model.revision {base.commit}: is not the name of a commit, tag or branch")
    if request.kind == "adapter" and base.hub_id is None and request.base_id is None:
        raise UserError(
            f"the base model was a directory, {base.name}, and whoever gets the adapter needs a name for it: "
            f"--base-id OWNER/NAME gives its hub id, --base-id {NOT_ON_HUB} says that it is on no hub"
        )
    evaluation = read_evaluation(run, manifest) if manifest else None
    return Source(request, config, manifest, template, tokenizer, settings, base, data, evaluation)


def _changeable_without_run(directory: Path) -> tuple[str, ...]:
    """What the command line may say of a bare adapter: all that nothing beside it says."""
    return ("model.", "generation.", *(() if (directory / FILE_NAME).exists() else ("prompt.",)))
