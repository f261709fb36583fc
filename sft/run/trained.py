"""What was trained, whoever did it, read whole but for the weights: a finished run, or an adapter without one."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from sft.build_base import ensure_base
from sft.config.sections import Config
from sft.model.adapter import ADAPTER_FILE, CONFIG_FILE, check_adapter, check_trained_on, read_config
from sft.model.load import load_tokenizer
from sft.prompt.encode import tokenizer_sha256
from sft.prompt.template import FILE_NAME, PromptTemplate, template_from_config
from sft.run.bare_adapter import named_base
from sft.run.checkpoints import path_of, require_whole
from sft.run.directory import check_learned, require_usable, run_config, settings_of, weights_directory
from sft.run.manifest import FinishedManifest
from sft.system.errors import UserError, warn
from sft.system.files import file_sha256, text_sha256


class Trained(NamedTuple):
    """What was trained, as it was written."""

    directory: Path
    manifest: FinishedManifest | None
    """None: a bare adapter, of whose training nothing is known."""
    config: Config
    template: PromptTemplate
    tokenizer: PreTrainedTokenizerBase
    learned_sha256: str
    """One hash of all that was learned, with tokenizer and template, to tell whose answers these are."""
    checkpoint: Path | None = None
    """Of the run, whose weights are taken; None: those that it ended with."""

    @property
    def weights(self) -> Path:
        """The directory of the adapter, or of the model where all weights were trained."""
        return self.checkpoint or weights_directory(self.directory)

    @property
    def id(self) -> str:
        """Which training it was: when a run was begun; of a bare adapter, what it learned."""
        return self.manifest.started if self.manifest else self.learned_sha256


def read_trained(directory: Path, overrides: Sequence[str] = (), step: int | None = None) -> Trained:
    """Read what was trained; `overrides` are `section.key=value` of its configuration.

    `step` is that of a checkpoint whose weights are taken, with the run's own tokenizer and template. Raises UserError
    where anything is missing, unfinished, damaged or no plain LoRA, and where something else stands in a run than its
    training wrote.
    """
    manifest = require_usable(directory)
    if manifest is None and step is not None:
        raise UserError(f"{directory}: is an adapter without a run, and has no checkpoints; leave --checkpoint out")
    if manifest is None:
        return _bare_adapter(directory, run_config(directory, overrides))
    check_learned(directory, manifest)
    config = run_config(directory, overrides)
    weights, digest = weights_directory(directory), manifest.learned_sha256
    checkpoint = None if step is None else path_of(directory / "checkpoints", step)
    if checkpoint:
        digest = text_sha256([digest, require_whole(checkpoint, manifest.started)])
    if config.lora is not None:
        check_trained_on(checkpoint or weights, settings_of(directory).model.base)
    template = PromptTemplate.load(weights)
    tokenizer = load_tokenizer(str(weights), trust_remote_code=config.model.trust_remote_code)
    return Trained(directory, manifest, config, template, tokenizer, digest, checkpoint)


def _bare_adapter(directory: Path, config: Config) -> Trained:
    read_config(directory)
    check_adapter(directory)
    section, named = config.model, named_base(directory)
    if named and Path(named).name != Path(section.base).name:
        warn([f"{directory}: says that it was trained on {named}, and not on {section.base}"])
    ensure_base(section.build, section.base)
    own = str(directory) if (directory / "tokenizer_config.json").is_file() else None
    source = section.tokenizer or own
    tokenizer = load_tokenizer(
        source or section.base, None if source else section.revision, section.trust_remote_code, section.newline
    )
    if (directory / FILE_NAME).exists():
        template = PromptTemplate.load(directory)
    else:
        template = template_from_config(config.prompt.template, tokenizer)
    if template.end:
        tokenizer.eos_token = template.end
    learned = [file_sha256(directory / name) for name in (CONFIG_FILE, ADAPTER_FILE)]
    digest = text_sha256([*learned, tokenizer_sha256(tokenizer), template.sha256])
    return Trained(directory, None, config, template, tokenizer, digest)
