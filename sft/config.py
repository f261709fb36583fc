"""The configuration: one YAML file a model or experiment, checked without importing torch.

The sections `quantization`, `lora`, `training` and `generation` hold the keys of `transformers.BitsAndBytesConfig`,
`peft.LoraConfig`, `trl.SFTConfig` and `transformers.GenerationConfig`, so those libraries' documentation applies.
The other sections, and the two classes named `…Keys`, are documented here.
"""

import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sft.data.records import CATEGORIES, GROUPS
from sft.data.split import named_weights
from sft.library_keys import LIBRARY_CLASSES, MODULE_NAME, REFUSED, check_value, key_types, mismatch, usable_keys
from sft.prompt.template import checked_template
from sft.system.errors import UserError
from sft.system.visible import holds_token
from sft.system.yaml_text import dump_yaml, parse_yaml, read_yaml

HARMLESS = {
    "model.build", "training.logging_steps", "training.save_strategy", "training.save_steps",
    "training.save_total_limit", "training.eval_strategy", "training.eval_steps", "training.report_to",
    "training.per_device_eval_batch_size", "training.disable_tqdm", "training.run_name",
}  # fmt: skip
"""Keys that a resumed run may change: they decide what is written, not what is learned."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "lora": {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05},
    "training": {
        "max_length": 2048,
        "per_device_train_batch_size": 2,
        "per_device_eval_batch_size": 2,  # the library's 8 would need more memory than training does
        "num_train_epochs": 3.0,
        "learning_rate": 3e-4,
        "logging_steps": 1.0,
        "save_strategy": "steps",
        "save_steps": 50.0,
        "save_total_limit": 2,
        "eval_strategy": "epoch",
        "ddp_find_unused_parameters": False,  # every trained weight takes part in every loss
        "report_to": "none",
        "seed": 42,
    },
    "generation": {
        "max_new_tokens": 128,
        "temperature": 0.0,
        # Left unset, these two would come from the model's own files, or be 50 for top_k.
        "top_p": 1.0,
        "top_k": 0,
        "repetition_penalty": 1.0,
    },
}
"""Where the pipeline's defaults differ from the libraries'. A file's keys come on top."""


class Section(BaseModel):
    """Strict, immutable, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ModelSection(Section):
    """The base model and where it runs."""

    base: str = Field(min_length=1)
    """Hub id or directory of the base model."""
    tokenizer: str | None = None
    """Hub id or directory of the tokenizer; null: the same as `base`."""
    newline: str | None = Field(None, min_length=1)
    """What a newline is written as in tokens, and read back from. null: as the tokenizer does it, or <NL>, rinna's
    convention, where the tokenizer would lose it."""
    revision: str | None = None
    """Commit, tag or branch on the hub; null: the newest."""
    build: Literal["gemma-3-270m", "tiny"] | None = None
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
        """How the base model is found and made: keyword arguments of `sft.model.load_base` and `load_skeleton`."""
        return {
            "revision": self.revision, "trust_remote_code": self.trust_remote_code, "attention": self.attention,
        }  # fmt: skip


class Balance(Section):
    """How often an epoch shows the rows of each category: exactly one of `weights` and `temperature` says it."""

    weights: dict[str, float] | None = None
    """Weight by group (open, context, other) or category, 0 to 1000: 2 shows every row twice an epoch, 0.5 the first
    half of them, 0 none. A category's own weight wins over its group's, and what is not named has weight 1."""
    temperature: float | None = Field(None, ge=0, le=1)
    """Shares of the epoch in proportion to rows ** temperature: 1 changes nothing, 0 makes all equal. The largest is
    shown once and smaller ones come again, so no row is lost and the epoch gets longer."""
    by: Literal["group", "category"] = "group"
    """What `temperature` evens out. group: the three groups, each with its categories in their proportions."""

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, weights: dict[str, float] | None) -> dict[str, float] | None:
        names = (*GROUPS, *CATEGORIES)
        for name, weight in (weights or {}).items():
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"
                raise ValueError(f"{name} is neither a group nor a category; {hint}")
            if not 0 <= weight <= 1000:
                raise ValueError(f"{name} must be at least 0 and at most 1000, got {weight:g}")
        if weights is not None and not any(named_weights(weights).values()):
            raise ValueError("every category has weight 0; give at least one of them more")
        return weights

    @model_validator(mode="after")
    def _check_one_way(self) -> Self:
        if (self.weights is None) == (self.temperature is None):
            both = "contradict each other" if self.weights is not None else "are both missing"
            raise ValueError(f"weights and temperature {both}; give exactly one of them")
        if self.weights is not None and self.by != "group":
            raise ValueError("by says what temperature evens out; leave it out beside weights")
        return self


class DataSection(Section):
    """The instruction rows and how they are divided."""

    path: str = Field(min_length=1)
    """Hub id, or a json, jsonl, csv or parquet file."""
    revision: str | None = None
    """Commit, tag or branch on the hub; null: the newest."""
    validation_share: float = Field(0.02, ge=0, lt=1)
    """Share of the rows that the validation loss is measured on."""
    test_share: float = Field(0.10, ge=0, lt=1)
    """Share of the rows held out for `python -m eval`."""
    train_rows: int | None = Field(None, ge=1)
    """At most this many training rows, with the categories' shares (those of `balance`) kept; null: all."""
    balance: Balance | None = None
    """How often an epoch shows the rows of each category; null: each row once."""
    truncation: Literal["context", "end"] = "context"
    """What too long rows lose. context: tokens of their context, never of instruction or answer. end: the end, with
    the answer and its end-of-text token, as alpaca-lora's cutoff_len does; only for reproducing it."""


class CustomTemplate(Section):
    """A prompt template written out in the file. The trailing newline belongs to it."""

    with_input: str
    """Must contain {instruction} and {input}."""
    without_input: str
    """Must contain {instruction}."""

    @field_validator("with_input")
    @classmethod
    def _check_with_input(cls, text: str) -> str:
        return checked_template(text, {"instruction", "input"})

    @field_validator("without_input")
    @classmethod
    def _check_without_input(cls, text: str) -> str:
        return checked_template(text, {"instruction"})


class PromptSection(Section):
    """The prompt that training, answering and evaluation share."""

    template: Literal["alpaca-ja", "alpaca-en", "chat"] | CustomTemplate = "alpaca-ja"
    """A template's name, or a mapping with `with_input` and `without_input`. chat: the tokenizer's own chat template,
    with the question (and below it the context) as the user's message; the answer ends as the template ends a turn."""


class TrainingKeys(Section):
    """Keys of section `training` beside those of `trl.SFTConfig`."""

    total_batch_size: int = Field(ge=1)
    """Rows an optimizer step, over all processes; as many micro-batches as it takes make it up."""
    train_on_inputs: bool = True
    """true: loss on prompt and answer. false: on the answer and its end-of-text token only."""
    pack: bool | Literal["auto"] = "auto"
    """Whether the rows of an optimizer step stand one after another in bins of at most per_device_train_batch_size ×
    max_length tokens, without padding and without seeing each other. auto: where it is proved for the architecture
    that loss and gradient are those of padded rows."""
    activation_checkpointing: bool | Literal["auto"] = "auto"
    """Whether activations are computed again in the backward pass in place of being kept (gradient_checkpointing by its
    new name): far less memory, for up to half as much work again. auto: where training would otherwise take more than
    nine tenths of the GPU's memory (on a CPU: of the machine's), by the estimate of --dry-run --card."""
    packed_attention: Literal["auto", "dense", "documents", "varlen"] = "auto"
    """How packed rows are kept apart. dense: a mask of tokens × tokens. documents: row after row. varlen: PyTorch's
    kernel for GPUs in 16 bits, not measured yet. auto: documents on a CPU, dense on a GPU. All but dense compute what
    the rows of a bin begin with alike once for all of them."""


class GenerationKeys(Section):
    """Keys of section `generation` beside those of `transformers.GenerationConfig`.

    `temperature: 0` answers greedily whatever the sampling keys (top_p, top_k, …) say, so that
    `generation.temperature=0` on the command line is enough.
    """

    repetition_penalty_scope: Literal["generated", "all"] = "generated"
    """Which tokens the repetition penalty counts. generated: the answer's. all: the prompt's too."""


class EvalSection(Section):
    """How `python -m eval` answers and scores."""

    data: str | None = None
    """Rows to answer, as in `data.path`; null: the run's held-out test rows."""
    rows_per_category: int | None = Field(None, ge=1)
    """At most this many test rows a category; null: all."""
    batch_tokens: int = Field(8192, ge=1)
    """Padded tokens a generation batch, prompt and answer together."""
    seed: int = Field(0, ge=0)
    """Seed of sampling, shuffled references and bootstrap."""
    resamples: int = Field(10000, ge=1)
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

    def changes_training(self, other: "Config") -> list[str]:
        """What `other` would train differently: "training.learning_rate was 0.0003, is 0.001" for each such key."""
        changes = []
        for section in ("model", "data", "prompt", "quantization", "lora", "training"):
            old, new = ((config.model_dump()[section] or {}) for config in (self, other))
            for key in sorted(old.keys() | new.keys()):
                if old.get(key) != new.get(key) and f"{section}.{key}" not in HARMLESS:
                    changes.append(f"{section}.{key} was {old.get(key)}, is {new.get(key)}")
        return changes

    def with_absolute_paths(self) -> "Config":
        """The same configuration with local files and directories spelt out, so that it holds in any directory."""
        base, data = self.model.base, self.data.path
        local_base = self.model.build is not None or Path(base).exists()
        return self.model_copy(
            update={
                "model": self.model.model_copy(update={"base": os.path.abspath(base) if local_base else base}),
                "data": self.data.model_copy(update={"path": os.path.abspath(data) if Path(data).exists() else data}),
            }
        )

    def to_yaml(self) -> str:
        """The configuration with all defaults as YAML; `load_config` reads an equal one from it."""
        return dump_yaml(self.model_dump())


OWN_KEYS: dict[str, type[Section]] = {"training": TrainingKeys, "generation": GenerationKeys}
"""Library sections that hold keys of the pipeline's own as well."""


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> Config:
    """Read and check a YAML file; `overrides` are `section.key=value` with values in YAML, and the last one wins.

    Raises UserError, one line that names file (or command line), section and key, for anything wrong.
    """
    path = Path(path)
    values = read_yaml(path)
    origin = Origin(path, frozenset(override(values, text) for text in overrides))
    _check_texts(values, "", origin)
    for name in values:
        if name not in Config.model_fields:
            raise origin.error(str(name), unknown_section(str(name)))
    sections = {name: _checked_section(name, values, origin) for name in Config.model_fields}
    config = Config(**sections)
    check_values(config, origin)
    return config


def _check_texts(value: Any, key: str, origin: "Origin") -> None:
    """Refuse texts that no file could hold, and tokens of the hub, which would be kept in the run's config.yaml."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _check_texts(str(name), key, origin)
            _check_texts(inner, f"{key}.{name}".lstrip("."), origin)
    elif isinstance(value, list):
        for inner in value:
            _check_texts(inner, key, origin)
    elif isinstance(value, str):
        if holds_token(value):
            raise origin.error(key, "holds a login; take it out, and run `hf auth login` or set HF_TOKEN")
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise origin.error(key, "is not text: it holds a null character, or bytes that are not UTF-8")


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where values came from, to name it in errors."""

    path: Path
    overridden: frozenset[str]

    def error(self, key: str, message: str, *others: str) -> UserError:
        """The error about `key`; `others` are keys that take part in a contradiction."""
        pairs = [(f"{name}.", f"{override}.") for name in (key, *others) for override in self.overridden]
        given = any(name.startswith(override) or override.startswith(name) for name, override in pairs)
        return UserError(f"{'command line' if given else self.path}: {key}: {message}")


def override(values: dict[Any, Any], text: str) -> str:
    """Apply one `section.key=value` to `values` and return its dotted key. Raises UserError for what is not one."""
    dotted, equals, value_text = text.partition("=")
    *parents, last = dotted.split(".")
    if not equals or not all([*parents, last]):
        raise UserError(f"command line: {text!r} is not section.key=value")
    if not value_text.isprintable() and any("\ud800" <= character <= "\udfff" for character in value_text):
        raise UserError(f"command line: {dotted}: is not text in the terminal's encoding; set LC_ALL=C.UTF-8")
    value = parse_yaml(value_text, f"command line: {dotted}")
    for parent in parents:
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise UserError(f"command line: {dotted}: {parent} is not a mapping; set it as a whole")
    values[last] = value
    return dotted


def _checked_section(name: str, sections: dict[Any, Any], origin: Origin) -> Any:
    """One section with its defaults, as `Config` holds it. `lora: null` differs from none at all."""
    given = sections.get(name)
    if given is None and (name == "quantization" or (name == "lora" and name in sections)):
        return None
    if given is not None and not isinstance(given, dict):
        raise origin.error(name, mismatch(dict, given))
    values = DEFAULTS.get(name, {}) | (given or {})
    if name == "run" and values.get("directory") is None:
        values["directory"] = f"runs/{origin.path.stem}"
    if name not in LIBRARY_CLASSES:
        return _validated(Config.model_fields[name].annotation, name, values, origin)
    own = OWN_KEYS[name].model_fields if name in OWN_KEYS else {}
    library = {key: value for key, value in values.items() if key not in own}
    for key, value in library.items():
        if key in REFUSED[name]:
            raise origin.error(f"{name}.{key}", f"not set here; {REFUSED[name][key]}")
        if key not in key_types(name):
            raise origin.error(f"{name}.{key}", unknown_key(name, str(key)))
        try:
            library[key] = check_value(name, key, value)
        except ValueError as error:
            raise origin.error(f"{name}.{key}", str(error)) from None
    if name in OWN_KEYS:
        ours = {key: value for key, value in values.items() if key in own}
        return _validated(OWN_KEYS[name], name, ours, origin).model_dump() | library
    return library


def _validated(cls: Any, name: str, values: dict[Any, Any], origin: Origin) -> Any:
    """`values` as the section class `cls`; pydantic's errors become one line about one key."""
    try:
        return cls.model_validate(values)
    except ValidationError as validation_error:
        # A union reports every branch; the one that got deepest is what was meant.
        errors = [(_path(values, error["loc"]), error) for error in validation_error.errors()]
        keys, error = max(errors, key=lambda item: len(item[0]))
    dotted, value, kind = ".".join((name, *keys)), error["input"], error["type"]
    if kind == "missing":
        raise origin.error(f"{dotted}.{error['loc'][-1]}", "missing, but required")
    if kind in ("extra_forbidden", "invalid_key"):
        key = str(error["loc"][-1])
        if len(keys) == 1:
            raise origin.error(dotted, unknown_key(name, key))
        raise origin.error(dotted, f"unknown key; known: {', '.join(_nested(cls, keys[0]).model_fields)}")
    if kind == "value_error":
        raise origin.error(dotted, str(error["ctx"]["error"]))
    if kind.startswith(("greater_than", "less_than", "string_too_short")):
        raise origin.error(dotted, f"{error['msg'][0].lower()}{error['msg'][1:]}, got {value!r}")
    expected = str if error["loc"][-1] == "[key]" else _annotation(cls, keys)
    raise origin.error(dotted, mismatch(expected, value))


def _annotation(cls: Any, keys: Sequence[str]) -> Any:
    """The type of what stands at `keys` in section class `cls`: a field, a nested section's, or a mapping's value."""
    if len(keys) == 1:
        return cls.model_fields[keys[0]].annotation
    annotation = _nested(cls, keys[0]).model_fields[keys[1]].annotation
    return annotation if len(keys) == 2 else next(get_args(a)[1] for a in get_args(annotation) if get_origin(a) is dict)


def _nested(cls: Any, key: str) -> Any:
    """The section class among the types that field `key` of `cls` may have."""
    types = get_args(cls.model_fields[key].annotation)
    return next(kind for kind in types if isinstance(kind, type) and issubclass(kind, Section))


def _path(values: Any, location: tuple[int | str, ...]) -> list[str]:
    """The part of a pydantic error's location that is keys of the file (the rest names branches of a union)."""
    keys = []
    for part in location:
        if isinstance(values, dict) and part in values:
            keys.append(str(part))
            values = values[part]
    return keys


def section_keys(section: str) -> list[str]:
    """Keys that may be written in a section."""
    if section in LIBRARY_CLASSES:
        own = OWN_KEYS[section].model_fields if section in OWN_KEYS else {}
        return [*own, *usable_keys(section)]
    annotation: Any = Config.model_fields[section].annotation
    return list(annotation.model_fields)


def unknown_key(section: str, key: str) -> str:
    """The nearest known key: the same one in another section, a similar one here, a similar one elsewhere."""
    others = [name for name in Config.model_fields if name != section]
    homes = [name for name in others if key in section_keys(name)]
    if homes:
        return f"unknown key; {key} belongs to {' or '.join(homes)}"
    near = difflib.get_close_matches(key, section_keys(section), n=1)
    near = near or difflib.get_close_matches(key, [f"{name}.{k}" for name in others for k in section_keys(name)], n=1)
    if near:
        return f"unknown key; did you mean {near[0]}?"
    if section in LIBRARY_CLASSES:
        return f"unknown key; {LIBRARY_CLASSES[section]} has the keys of this section"
    return f"unknown key; known: {', '.join(section_keys(section))}"


def unknown_section(name: str) -> str:
    homes = [section for section in Config.model_fields if name in section_keys(section)]
    if homes:
        return f"unknown section; {name} belongs to {' or '.join(homes)}"
    near = difflib.get_close_matches(name, Config.model_fields, n=1)
    return (
        f"unknown section; did you mean {near[0]}?"
        if near
        else f"unknown section; known: {', '.join(Config.model_fields)}"
    )


_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lora.r": (lambda value: value >= 1, "at least 1"),
    "lora.lora_alpha": (lambda value: value > 0, "above 0"),
    "lora.lora_dropout": (lambda value: 0 <= value < 1, "at least 0 and below 1"),
    "lora.init_lora_weights": (
        lambda value: value in (True, False, "gaussian"),
        "true, false or gaussian (the others change the base's weights, which no adapter holds)",
    ),
    "lora.bias": (lambda value: value == "none", "none (biases are the base's, and answers of the base would change)"),
    "training.max_length": (lambda value: value >= 16, "at least 16"),
    "training.per_device_train_batch_size": (lambda value: value >= 1, "at least 1"),
    "training.per_device_eval_batch_size": (lambda value: value >= 1, "at least 1"),
    "training.num_train_epochs": (lambda value: value > 0, "above 0"),
    "training.learning_rate": (lambda value: value > 0, "above 0"),
    "training.warmup_steps": (lambda value: value >= 0, "at least 0"),
    "training.save_steps": (lambda value: value > 0, "above 0"),
    "training.save_strategy": (lambda value: value != "best", "steps, epoch or no"),
    "training.logging_steps": (lambda value: value > 0, "above 0"),
    "generation.max_new_tokens": (lambda value: value >= 1, "at least 1"),
    "generation.temperature": (lambda value: value >= 0, "at least 0 (0 answers greedily)"),
    "generation.top_p": (lambda value: 0 < value <= 1, "above 0 and at most 1 (1 keeps every token)"),
    "generation.top_k": (lambda value: value >= 0, "at least 0 (0 keeps every token)"),
    "generation.repetition_penalty": (lambda value: value > 0, "above 0 (1 is no penalty)"),
}
"""What the libraries would refuse later, or not at all."""


def check_values(config: Config, origin: Origin) -> None:
    """Refuse numbers out of range and sections that contradict each other or themselves."""
    for key, (fits, words) in _RANGES.items():
        section, name = key.split(".")
        values = getattr(config, section) or {}
        if name in values and (values[name] is None or not fits(values[name])):
            raise origin.error(key, f"must be {words}, got {'null' if values[name] is None else values[name]}")
    for name in ("exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern"):
        names = (config.lora or {}).get(name) or []
        if not all(re.match(MODULE_NAME, str(part)) for part in ([names] if isinstance(names, str) else names)):
            raise origin.error(f"lora.{name}", "takes names of modules; a regular expression would not be loaded again")
    validation, test = config.data.validation_share, config.data.test_share
    if validation + test >= 1:
        message = f"{test:g} with data.validation_share {validation:g} leaves nothing to train on"
        raise origin.error("data.test_share", message, "data.validation_share")
    if config.model.device == "cpu" and config.model.dtype == "float16":
        raise origin.error(
            "model.dtype", "float16 needs a GPU; use bfloat16 or float32 with model.device cpu", "model.device"
        )
    if config.quantization is not None and config.lora is None:
        raise origin.error("lora", "null trains all weights, which quantised ones cannot be; set quantization: null")
    if config.quantization is not None:
        bits = [key for key in ("load_in_4bit", "load_in_8bit") if config.quantization.get(key)]
        if len(bits) == 2:
            raise origin.error(
                "quantization.load_in_4bit", "contradicts load_in_8bit; set one of the two", "quantization.load_in_8bit"
            )
        if not bits:
            raise origin.error(
                "quantization", "neither load_in_4bit nor load_in_8bit is true; quantization: null turns it off"
            )
