"""The study's models, untuned or tuned, known before they are loaded."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from sft.config.load import load_config
from sft.config.sections import Config
from sft.generation.answerer import Answerer, load_answerer, open_run
from sft.model.base_identity import BaseIdentity, base_identity
from sft.model.load import load_base
from sft.model.loss import add_token_nll
from sft.model.place import resolve_device, resolve_dtype, use_all_cores
from sft.plan.prepare import read_tokenizer
from sft.prompt.template import PromptTemplate
from sft.system.files import text_sha256


class Model(NamedTuple):
    """A model that is known and not loaded yet: `learned` is the hash of what tuning made, None for an untuned one."""

    config: Config
    template: PromptTemplate
    base: BaseIdentity
    learned: str | None
    tokenizer: PreTrainedTokenizerBase
    load: Callable[[], Answerer]

    @property
    def described(self) -> dict[str, Any]:
        """What tells it from others, without the places of files on somebody's machine."""
        section = self.config.model
        return {
            "model": Path(section.base).name if self.base.sha256 else section.base,
            "base": self.base._asdict(),
            "learned_sha256": self.learned,
            "dtype": str(resolve_dtype(section.dtype, resolve_device(section.device))),
            "quantization": self.config.quantization,
            "template": {"name": self.template.name, "sha256": self.template.sha256},
        }


def open_model(path: Path, overrides: Sequence[str]) -> Model:
    """A finished run's tuned model, or the base model of a configuration, a YAML file, with its prompt.

    Raises UserError for anything wrong with the configuration or the run.
    """
    if path.suffix != ".yaml":
        opened = open_run(path, overrides)
        trained, load = opened.trained, functools.partial(load_answerer, opened)
        return Model(opened.config, opened.template, opened.base, trained.learned_sha256, trained.tokenizer, load)
    config = load_config(path, overrides)
    tokenizer, template = read_tokenizer(config)
    base = base_identity(config.model)
    return Model(
        config, template, base, None, tokenizer, lambda: _load_untuned(path, config, tokenizer, template, base)
    )


def _load_untuned(
    path: Path, config: Config, tokenizer: PreTrainedTokenizerBase, template: PromptTemplate, base: BaseIdentity
) -> Answerer:
    """The base model, as a run trained with this configuration would have it before the first step."""
    device = resolve_device(config.model.device)
    if device.type == "cpu":
        use_all_cores()
    dtype = resolve_dtype(config.model.dtype, device)
    model = load_base(config.model.base, device, dtype, config.quantization, **config.model.loading)
    add_token_nll(model)
    loading = [config.model.model_dump_json(), str(config.quantization), device.type, str(dtype)]
    identity = text_sha256([template.sha256, *map(str, base), *loading])
    return Answerer(path, config, model.eval(), tokenizer, template, {}, identity)
