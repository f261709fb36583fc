"""What may stand in a YAML file: the sections, their keys, types, bounds and defaults.

The sections `quantization`, `lora`, `training` and `generation` hold the keys of `transformers.BitsAndBytesConfig`,
`peft.LoraConfig`, `trl.SFTConfig` and `transformers.GenerationConfig`, so those libraries' documentation applies.
The other sections, and the two classes named `…Keys`, are documented here.
"""

import os
import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, create_model

from sft.config.data.balance import Balance
from sft.config.data.files import Columns, DataFiles
from sft.config.data.groups import category_names, group_by_category
from sft.config.library.keys import MODULE_NAME, key_types
from sft.config.repetition_penalty import DEFAULT_SCOPE, NO_PENALTY, PenaltyScope
from sft.config.section import Section
from sft.data.records import Group
from sft.prompt.template import checked_template
from sft.system.yaml_text import dump_yaml

Count = Annotated[int, Field(ge=1, lt=2**31)]
"""How many of something."""
LogLevel = Literal["detail", "debug", "info", "warning", "error", "critical", "passive"]
StopString = Annotated[str, Field(min_length=1, max_length=1000)]
"""A text that ends an answer."""
UNSET: Any = None
"""The default of a key that is left to the library."""


class ModelSection(Section):
    """The base model and where it runs."""

    base: str = Field(min_length=1)
    """Hub id or directory of the base model."""
    adapter: str | None = Field(None, min_length=1)
    """The directory of a finished run whose adapter is trained on, with its LoRA settings; null: a fresh one."""
    tokenizer: str | None = None
    """Hub id or directory of the tokenizer; null: the same as `base`."""
    newline: str | None = Field(None, min_length=1)
    """What a newline is written as in tokens, and read back from. null: as the tokenizer does it, or <NL>, rinna's
    convention, where the tokenizer would lose it."""
    revision: str | None = None
    """Commit, tag or branch on the hub; null: the newest."""
    build: Literal["gemma-3-270m", "qwen2.5-coder-1.5b", "tiny"] | None = None
    """How to make the directory `base` when it is absent; null: it is never made."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where there is one."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Type of the base weights. auto: bfloat16 where supported (CPUs included), else float16."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flex_attention"] = "auto"
    """Implementation of the attention, as transformers names them. auto: transformers' choice for the model, and what
    training.packed_attention says where rows are packed."""
    trust_remote_code: bool = False
    """Whether to run Python code that comes with the model."""

    @property
    def loading(self) -> dict[str, Any]:
        """How the base model is found and made: keyword arguments of `sft.model.load.load_base` and `load_skeleton`."""
        return self.model_dump(include={"revision", "trust_remote_code", "attention"})


class DataSection(DataFiles):
    """The instruction rows and how they are divided."""

    validation_share: float = Field(0.02, ge=0, lt=1)
    """Share of the rows that the validation loss is measured on."""
    test_share: float = Field(0.10, ge=0, lt=1)
    """Share of the rows held out for `python -m eval`."""
    groups: Annotated[dict[str, Group], BeforeValidator(group_by_category), AfterValidator(category_names)] = Field(
        default_factory=dict
    )
    """The group (open, context or other) that reports count a category's rows in, by category. dolly's categories have
    theirs; rows of another category that is not named here are in context where they have a context, else in open."""
    train_rows: Count | None = None
    """At most this many training rows, with the categories' shares (those of `balance`) kept; null: all."""
    balance: Balance | None = None
    """How often an epoch shows the rows of each category; null: each row once."""
    truncation: Literal["context", "end"] = "context"
    """What too long rows lose. context: the oldest turns of a conversation, then tokens of their context, never of
    instruction or answer. end: the end, with
    the answer and its end-of-text token, as alpaca-lora's cutoff_len does; only for reproducing it."""

    @property
    def shares(self) -> tuple[float, float]:
        """The shares of `path` that validate and test: none where they have files of their own."""
        validation = self.validation_share if self.validation is None else 0.0
        return validation, self.test_share if self.test is None else 0.0


class CustomTemplate(Section):
    """A prompt template written out in the file. The trailing newline belongs to it."""

    with_input: Annotated[str, AfterValidator(partial(checked_template, wanted={"instruction", "input"}))]
    """Must contain {instruction} and {input}."""
    without_input: Annotated[str, AfterValidator(partial(checked_template, wanted={"instruction"}))]
    """Must contain {instruction}."""


class PromptSection(Section):
    """The prompt that training, answering and evaluation share."""

    template: (
        Literal["alpaca-ja", "alpaca-ja-context-first", "alpaca-en", "chat", "chat-context-first"] | CustomTemplate
    ) = "alpaca-ja"
    """A template's name, or a mapping with `with_input` and `without_input`. chat: the tokenizer's own chat template,
    with the question (and below it the context) as the user's message; the answer ends as the template ends a turn.
    The others take single questions: rows lose their earlier turns and system messages there. `…-context-first`: the
    same with the context above the question, for questions about a text."""


def _module_name(name: str) -> str:
    if not re.match(MODULE_NAME, name):
        raise ValueError("takes names of modules; a regular expression would not be loaded again")
    return name


ModuleName = Annotated[str, AfterValidator(_module_name)]


class LoraSection(Section):
    """Keys of `peft.LoraConfig` with the pipeline's own default, range or choice; the others come on top."""

    r: int = Field(8, ge=1, le=2**16)
    lora_alpha: int = Field(16, ge=1, le=2**20)
    lora_dropout: float = Field(0.05, ge=0, lt=1)
    init_lora_weights: bool | Literal["gaussian"] = Field(
        UNSET, description="the others change the base's weights, which no adapter holds"
    )
    bias: Literal["none"] = Field(UNSET, description="biases are the base's, and answers of the base would change")
    exclude_modules: ModuleName | list[ModuleName] | None = UNSET
    layers_pattern: ModuleName | list[ModuleName] | None = UNSET
    rank_pattern: dict[ModuleName, Annotated[int, Field(ge=1, le=2**16)]] = UNSET
    alpha_pattern: dict[ModuleName, Annotated[int | float, Field(gt=0, le=2**20)]] = UNSET


class TrainingKeys(Section):
    """Keys of section `training` beside those of `trl.SFTConfig`."""

    total_batch_size: int = Field(ge=1, le=2**20)
    """Rows an optimizer step, over all processes; as many micro-batches as it takes make it up."""
    train_on_inputs: bool = True
    """true: loss on prompt and answer. false: on the answer and its end-of-text token only."""
    turns: Literal["all", "last"] = "last"
    """Which answers of a conversation are learned where train_on_inputs is false: all, or the last one only. Earlier
    ones are then read as the question is."""
    pack: bool | Literal["auto"] = "auto"
    """Whether the rows of an optimizer step stand one after another in bins of at most per_device_train_batch_size ×
    max_length tokens, without padding and without seeing each other. auto: where it is proved for the architecture
    that loss and gradient are those of padded rows."""
    activation_checkpointing: bool | Literal["auto"] = "auto"
    """Whether activations are computed again in the backward pass in place of being kept (gradient_checkpointing by its
    new name): far less memory, for up to half as much work again. auto: where training would otherwise take more than
    nine tenths of the memory that is free on the GPU, or on a machine without one, when it begins, by the estimate of
    --dry-run --card, and smaller micro-batches of at least 4,096 tokens are no remedy."""
    keep_best: Literal["overall", "open", "context", "other"] | None = None
    """Whose validation loss says which step the run ends with, the one where it is lowest: a checkpoint is saved there,
    and kept beside the newest. overall: all validation rows'. null: the run ends with its last step."""
    patience: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    """The training ends after so many validations in a row without a better one, by `keep_best`; null: it does not."""
    packed_attention: Literal["auto", "dense", "documents", "varlen"] = "auto"
    """How packed rows are kept apart. dense: a mask of tokens × tokens. documents: row after row. varlen: PyTorch's
    kernel for GPUs and models in bfloat16, not measured yet. auto: documents on a CPU, dense on a GPU. All but dense
    compute what the rows of a bin begin with alike once for all of them."""
    samples: int = Field(2, ge=0, le=100)
    """How many questions of each group's validation rows are answered, greedily, at every validation, to the terminal,
    `samples.jsonl` and `run.html`; 0: none. What is learned is the same with and without."""


class TrainingSection(TrainingKeys):
    """Keys of `trl.SFTConfig` with the pipeline's own default or range; the others come on top."""

    max_length: int = Field(2048, ge=16, le=2**20)
    per_device_train_batch_size: int = Field(2, ge=1, le=2**16)
    per_device_eval_batch_size: int = Field(2, ge=1, le=2**16)
    """The library's 8 would need more memory than training does."""
    num_train_epochs: float = Field(3.0, gt=0, le=10_000)
    learning_rate: float = Field(3e-4, gt=0, le=100)
    logging_steps: float = Field(1.0, gt=0, le=1e9)
    save_strategy: Literal["no", "steps", "epoch"] = Field("steps", description="for the best: training.keep_best")
    save_steps: float = Field(50.0, gt=0, le=1e9)
    save_total_limit: Annotated[int, Field(ge=0, lt=2**31)] | None = 2
    eval_strategy: Literal["no", "steps", "epoch"] = "epoch"
    ddp_find_unused_parameters: bool | None = False
    """Every trained weight takes part in every loss."""
    report_to: str | list[str] = "none"
    seed: int = Field(42, ge=0, lt=2**32)
    optim_args: str | None = Field(
        UNSET, pattern=r"^\s*\w+=[^=,]+(,\s*\w+=[^=,]+)*$", description="name=value, name=value"
    )
    log_level: LogLevel = UNSET
    log_level_replica: LogLevel = UNSET
    weight_decay: float = Field(UNSET, ge=0, le=1000)
    adam_beta1: float = Field(UNSET, ge=0, lt=1)
    adam_beta2: float = Field(UNSET, ge=0, lt=1)
    adam_epsilon: float = Field(UNSET, ge=0, le=1)
    eval_steps: Annotated[float, Field(gt=0, le=1e9)] | None = UNSET
    dataloader_num_workers: int = Field(UNSET, ge=0, le=1024)
    dataloader_prefetch_factor: Annotated[int, Field(ge=1, le=1024)] | None = UNSET


class GenerationKeys(Section):
    """Keys of section `generation` beside those of `transformers.GenerationConfig`.

    `temperature: 0` answers greedily whatever the sampling keys (top_p, top_k, …) say, so that
    `generation.temperature=0` on the command line is enough.
    """

    repetition_penalty_scope: PenaltyScope = DEFAULT_SCOPE
    """Which tokens the repetition penalty counts. generated: the answer's. all: the prompt's too."""


class GenerationSection(GenerationKeys):
    """Keys of `transformers.GenerationConfig` with the pipeline's own default or range; the others come on top."""

    max_new_tokens: int = Field(128, ge=1, le=2**20)
    temperature: float = Field(0.0, ge=0, le=1000, description="0 answers greedily")
    # Left unset, these two would come from the model's own files, or be 50 for top_k.
    top_p: float = Field(1.0, gt=0, le=1, description="1 keeps every token")
    top_k: int = Field(0, ge=0, lt=2**31, description="0 keeps every token")
    repetition_penalty: float = Field(NO_PENALTY, gt=0, le=1000, description="1 is no penalty")
    stop_strings: StopString | list[StopString] | None = UNSET
    num_beams: Annotated[int, Field(ge=1, le=1024)] | None = UNSET
    length_penalty: Annotated[float, Field(ge=-1000, le=1000)] | None = UNSET


class EvalSection(Section):
    """How `python -m eval` answers and scores."""

    data: str | None = None
    """Rows to answer, as in `data.path`; null: the run's held-out test rows."""
    columns: Columns | None = Field(None, description="such as {instruction: 質問, output: 回答}")
    """Which column of `data` holds which field, as in `data.columns`; null: those of the run, for this file."""
    rows_per_category: Count | None = None
    """At most this many test rows a category; null: all."""
    shots: int = Field(0, ge=0, le=64)
    """So many training rows of the same group are shown in each prompt as examples, drawn by `seed`."""
    brief: bool = False
    """Ask for an answer in a word: a sentence below each question says so (答えだけを短く書いてください。)."""
    batch_tokens: Count = 8192
    """Padded tokens a generation batch, prompt and answer together."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of sampling, shuffled references and bootstrap."""
    resamples: int = Field(10_000, ge=1, le=1_000_000)
    """Bootstrap resamples of a confidence interval."""


class RunSection(Section):
    """Where results go."""

    directory: str = Field(min_length=1)
    """The run directory; null or left out: runs/<name of the configuration file>."""


class Config(Section):
    """A checked configuration with every default filled in."""

    model: ModelSection
    data: DataSection
    prompt: PromptSection
    quantization: dict[str, Any] | None
    """Arguments of `transformers.BitsAndBytesConfig`; None: not quantised."""
    lora: dict[str, Any] | None
    """Arguments of `peft.LoraConfig`; None (`lora: null`): no adapter, all weights are trained."""
    training: dict[str, Any]
    """`TrainingKeys` and arguments of `trl.SFTConfig`."""
    generation: dict[str, Any]
    """`GenerationKeys` and arguments of `transformers.GenerationConfig`."""
    eval: EvalSection
    run: RunSection

    @property
    def name(self) -> str:
        """The run's name: the last part of its directory, by default the configuration file's stem."""
        return self.run_directory.name

    @property
    def run_directory(self) -> Path:
        """Where the run's results are, relative to the working directory unless absolute."""
        return Path(self.run.directory)

    def library(self, section: Literal["quantization", "lora", "training", "generation"]) -> dict[str, Any]:
        """A copy of a library section without the pipeline's own keys: arguments for the library's class."""
        own = OWN_KEYS[section].model_fields if section in OWN_KEYS else {}
        return {key: value for key, value in (getattr(self, section) or {}).items() if key not in own}

    def with_absolute_paths(self) -> "Config":
        """The same configuration with local files and directories spelt out, so that it holds in any directory."""
        base = self.model.base
        if self.model.build is not None or Path(base).exists():
            base = os.path.abspath(base)
        adapter = self.model.adapter and os.path.abspath(self.model.adapter)
        model = self.model.model_copy(update={"base": base, "adapter": adapter})
        return self.model_copy(update={"model": model, "data": self.data.with_absolute_paths()})

    def to_yaml(self) -> str:
        """The configuration with all defaults as YAML; `load_config` reads an equal one from it."""
        return dump_yaml(self.model_dump())


OWN_KEYS: dict[str, type[Section]] = {"training": TrainingKeys, "generation": GenerationKeys}
"""Library sections that hold keys of the pipeline's own as well."""


def _with_library_keys(section: str, own: type[Section]) -> type[Section]:
    """`own` and the keys of the library class behind `section` that it does not have."""
    keys: dict[str, Any] = {k: (kind, UNSET) for k, kind in key_types(section).items() if k not in own.model_fields}
    return create_model(own.__name__, __base__=own, **keys)


SECTIONS: dict[str, type[Section]] = {
    "model": ModelSection,
    "data": DataSection,
    "prompt": PromptSection,
    "quantization": _with_library_keys("quantization", Section),
    "lora": _with_library_keys("lora", LoraSection),
    "training": _with_library_keys("training", TrainingSection),
    "generation": _with_library_keys("generation", GenerationSection),
    "eval": EvalSection,
    "run": RunSection,
}
"""What may stand in each section."""
