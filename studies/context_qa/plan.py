"""The study's file, checked, and what there is to do for it, in order. No torch here."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError, field_validator, model_validator

from eval.predictions import BASE
from sft.config.load import override
from sft.config.origin import Origin
from sft.config.repetition_penalty import SCOPE
from sft.config.sections import Section
from sft.data.records import category_name
from sft.system.yaml_text import read_yaml

GREEDY = "greedy"
"""The decoding without penalty and sampling that every system gets, and that likelihoods are measured beside."""
RowsName = Literal["jsquad", "dolly", "niilc", "jsquad-shots"]
ROWS: tuple[RowsName, ...] = ("jsquad", "dolly", "niilc", "jsquad-shots")
"""Sets of rows, the most informative first."""
DECODING_KEYS = ("article_decoding", "recipe_decoding")
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]


class RowSet(Section):
    """Rows to answer."""

    path: str | None = None
    """A hub id or a file, as in `data.path`; null: the held-out test rows of the training."""
    categories: list[str] = Field(min_length=1)
    """Categories to take rows from, dolly's or the user's own."""
    rows: int | None = Field(None, ge=1)
    """At most this many rows of each category, the first in hash order; null: all."""
    shots: int = Field(0, ge=0, le=64)
    """So many answered rows stand in the prompt as examples: other rows of the file, or training rows where `path` is
    null. Where there are any, answers are greedy ones alone."""
    every_arm: bool = True
    """Whether every arm is asked; false: the base model, article and recipe alone."""

    @field_validator("categories")
    @classmethod
    def _check_categories(cls, names: list[str]) -> list[str]:
        return list(map(category_name, names))


class Study(Section):
    """What is trained, answered and compared."""

    config: str = Field(min_length=1)
    """The configuration file that all trainings start from."""
    directory: str = Field(min_length=1)
    """Where trainings, answers and report go."""
    scores: str = Field(min_length=1)
    """Where row scores are kept, which hold no text: what has them counts as done. The last part names the model."""
    data: str | None = None
    """The instruction rows, in place of the configuration's `data.path`; null: those of the configuration."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    """`article`, `recipe` and `confirmed` are trained once with each seed, other arms with the first alone."""
    confirmed: list[Name] = Field(default_factory=list)
    """Arms that stood out with the first seed, and are looked at again with the others."""
    overrides: list[str] = Field(default_factory=list)
    """`section.key=value` for all trainings and answers."""
    arms: dict[Name, list[str]] = Field(min_length=1)
    """Training arm → its `section.key=value`; the name of an arm above stands for what that one says."""
    untuned: dict[Name, list[str]] = Field(default_factory=dict)
    """The base model asked otherwise, under a name of its own → its `section.key=value`."""
    article: str
    """The arm that trains as the article did."""
    recipe: str
    """The arm that trains as recommended."""
    decodings: dict[Name, dict[str, Any]]
    """Decoding → keys of section `generation`, on top of the configuration's. One is called greedy. Article and recipe
    of the first seed answer under all of them."""
    short_decodings: list[str]
    """The decodings that the base model and other seeds of article and recipe answer under; greedy is one of them."""
    arm_decodings: list[str] = Field(default_factory=lambda: [GREEDY])
    """The decodings that every other arm answers under; greedy is one of them."""
    article_decoding: str
    """The decoding of the article, in the 2 × 2."""
    recipe_decoding: str
    """The recommended decoding, in the 2 × 2."""
    rows: dict[RowsName, RowSet] = Field(min_length=1)
    """jsquad and niilc: questions with short gold answers; dolly: rows like those trained on."""
    resamples: int = Field(10_000, ge=1)
    """Bootstrap resamples of the report."""

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"each seed once, got {seeds}")
        return seeds

    @field_validator("arms")
    @classmethod
    def _check_arms(cls, arms: dict[str, list[str]]) -> dict[str, list[str]]:
        if BASE in arms:
            raise ValueError(f"{BASE} is the model before tuning; give the arm another name")
        found: dict[str, list[str]] = {}
        for name, words in arms.items():
            found[name] = [part for word in words for part in found.get(word, [word])]
        return found

    @model_validator(mode="after")
    def _check_names(self) -> "Study":
        for keys, names in ((("article", "recipe"), self.arms), (DECODING_KEYS, self.decodings)):
            for key in keys:
                if getattr(self, key) not in names:
                    raise ValueError(f"{key}: {getattr(self, key)} is not one of {', '.join(names)}")
        for name in self.confirmed:
            if name not in self.arms:
                raise ValueError(f"confirmed: {name} is not one of {', '.join(self.arms)}")
        for name in self.untuned:
            if name in (BASE, *self.arms, *self.trained()):
                raise ValueError(f"untuned: {name} is another system's name; give it one of its own")
        if GREEDY not in self.decodings:
            raise ValueError(f"decodings.{GREEDY}: missing, but required")
        for key in ("short_decodings", "arm_decodings"):
            chosen = getattr(self, key)
            for name in chosen:
                if name not in self.decodings:
                    raise ValueError(f"{key}: {name} is not one of {', '.join(self.decodings)}")
            if GREEDY not in chosen:
                raise ValueError(f"{key}: {GREEDY} is not among them, but required")
        for name, settings in self.decodings.items():
            if "max_new_tokens" in settings:  # prompts leave room for it, so they would differ between decodings
                raise ValueError(
                    f"decodings.{name}.max_new_tokens: not set here; one for all is set in overrides, as "
                    "generation.max_new_tokens=…"
                )
        return self

    @property
    def root(self) -> Path:
        """The study's directory, relative to the working directory unless absolute."""
        return Path(self.directory)

    @property
    def common(self) -> list[str]:
        """What every training and answer overrides of the configuration."""
        return [*([f"data.path={_quoted(self.data)}"] if self.data else []), *self.overrides]

    @property
    def control(self) -> str | None:
        """The decoding that is the article's but for the penalty's scope: its penalty leaves the prompt alone."""
        wanted = self.decodings[self.article_decoding] | {SCOPE: "generated"}
        return next((name for name, settings in self.decodings.items() if settings == wanted), None)

    def training(self, arm: str, seed: int) -> list[str]:
        """What the training of an arm overrides of the configuration."""
        place = _quoted(str(self.run(arm, seed)))
        return [*self.common, *self.arms[arm], f"training.seed={seed}", f"run.directory={place}"]

    def decoding(self, name: str) -> list[str]:
        """What answering under a decoding overrides of the configuration."""
        settings = self.decodings[name].items()
        return [*self.common, *(f"generation.{key}={json.dumps(value)}" for key, value in settings)]

    def run(self, arm: str, seed: int) -> Path:
        """The run directory of a training."""
        return self.root / "train" / f"{arm}-{seed}"

    def rows_scores(self, rows: RowsName) -> Path:
        """Where it is kept what does not depend on a system: which rows there are, and what floors score."""
        return Path(self.scores) / "rows" / f"{rows}.jsonl"

    @property
    def placebo(self) -> dict[str, Path]:
        """System → its row scores of the placebo experiment, as far as they are there."""
        return {path.stem: path for path in sorted((Path(self.scores) / "placebo").glob("*.jsonl"))}

    @property
    def article_answers(self) -> Path:
        """What recurs in the article's printed answers, where somebody counted it."""
        return Path(self.scores) / "article.json"

    def trained(self) -> dict[str, tuple[str, int]]:
        """Tuned system → its arm and seed, in the order of training."""
        compared = [(arm, seed) for seed in self.seeds for arm in (self.article, self.recipe, *self.confirmed)]
        return {f"{arm}-{seed}": (arm, seed) for arm, seed in [*compared, *((arm, self.seeds[0]) for arm in self.arms)]}

    @property
    def compared(self) -> list[str]:
        """Base, article, recipe: what the study is about; all other arms are variations of theirs."""
        return list(dict.fromkeys((BASE, self.article, self.recipe)))

    @property
    def all_arms(self) -> list[str]:
        """What answers, seeds aside: the base model, however it is asked, and every training arm."""
        return [BASE, *self.untuned, *self.arms]

    @property
    def full_systems(self) -> list[str]:
        """Article and recipe of the first seed, which answer under every decoding."""
        return [f"{arm}-{self.seeds[0]}" for arm in dict.fromkeys((self.article, self.recipe))]


class Unit(NamedTuple):
    """One system's answers to one set of rows, under all of its decodings: what is scored at once, and kept as one."""

    system: str
    rows: RowsName

    def decodings(self, study: Study) -> list[str]:
        """What it answers under."""
        if study.rows[self.rows].shots:
            return [GREEDY]
        if self.system in study.full_systems:
            return list(study.decodings)
        return study.short_decodings if arm_of(study, self.system)[0] in study.compared else study.arm_decodings

    def answers(self, study: Study, decoding: str) -> Path:
        """Where its predictions are, with their texts."""
        return study.root / "answers" / self.system / self.rows / f"{decoding}.jsonl"

    def scores(self, study: Study) -> Path:
        """Where its row scores are, without a text."""
        return Path(study.scores) / self.system / f"{self.rows}.jsonl"


def _quoted(text: str) -> str:
    """The text as a value in YAML, in which a plain `a #1` would end at the space."""
    return json.dumps(text, ensure_ascii=False)


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read and check a study's file; `overrides` are `section.key=value` of it, with values in YAML.

    Raises UserError, one line that names file (or command line) and key, for anything wrong.
    """
    values = read_yaml(path)
    origin = Origin(path, frozenset(override(values, text) for text in overrides))
    try:
        return Study.model_validate(values)
    except ValidationError as validation_error:
        error = validation_error.errors()[0]
    # pydantic says [key] after a key of a mapping that is itself wrong.
    key, kind = ".".join(str(part) for part in error["loc"] if part != "[key]"), error["type"]
    if kind == "value_error":
        message = str(error["ctx"]["error"])
        if not key:  # the message of a check across keys begins with the key
            key, message = message.split(": ", 1)
        raise origin.error(key, message)
    if kind == "missing":
        raise origin.error(key, "missing, but required")
    if kind == "extra_forbidden":
        cls = RowSet if key.startswith("rows.") else Study
        raise origin.error(key, f"unknown key; known: {', '.join(cls.model_fields)}")
    raise origin.error(key, f"{error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}")


def changed_setting(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first generation setting that answers were made otherwise with; None when there is none.

    Both are settings as they take effect (`effective_settings`).
    """
    for key in sorted(recorded.keys() | wanted.keys()):
        was, now = recorded.get(key), wanted.get(key)
        if was != now:
            return f"{key} was {json.dumps(was)}, is {json.dumps(now)}"
    return None


def arm_of(study: Study, system: str) -> tuple[str, int | None]:
    """A system's arm and seed; the base model, however it is asked, is an arm without a seed."""
    return study.trained().get(system, (system, None))


def systems(study: Study) -> list[str]:
    """The base model, however it is asked, and every training."""
    return [BASE, *study.untuned, *study.trained()]


def units(study: Study) -> list[Unit]:
    """Everything that the study answers, the most informative first, a system's own together."""
    return [
        Unit(system, name)
        for system in systems(study)
        for name in ROWS
        if name in study.rows and (study.rows[name].every_arm or arm_of(study, system)[0] in study.compared)
    ]
