"""The configuration layer: what loads, what is refused and in which words, and that the libraries take the result."""

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sft.config.changes import training_changes
from sft.config.library.keys import REFUSED, TABLE, key_types, library_table
from sft.config.library.packages import OPTIMIZERS, REPORTERS, is_installed
from sft.config.load import load_config
from sft.config.sections import OWN_KEYS, SECTIONS, Config
from sft.prompt.template import TEMPLATES
from sft.system.errors import UserError

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))

MINIMAL = """
model: {base: models/tiny}
data: {path: data/sample.jsonl}
training: {total_batch_size: 32}
"""


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "minimal.yaml"
    path.write_text(MINIMAL)
    return path


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        load_config(path, overrides)
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_file_loads_and_survives_the_round_trip(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    assert config.run_directory == Path("runs") / path.stem
    resolved = tmp_path / "config.yaml"
    resolved.write_text(config.to_yaml(), encoding="utf-8")
    again = load_config(resolved)
    assert again == config
    assert again.to_yaml() == config.to_yaml()
    assert training_changes(again, config) == []


def test_calm7b_trains_as_the_article_and_answers_with_a_penalty_that_spares_the_context() -> None:
    config = load_config(ROOT / "configs" / "calm7b.yaml")
    assert config.model.base == "cyberagent/open-calm-7b"
    assert config.quantization == {"load_in_8bit": True}
    assert config.lora == {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": ["query_key_value"]}
    wanted: dict[str, object] = {"total_batch_size": 128, "train_on_inputs": True}
    wanted |= {"num_train_epochs": 3, "learning_rate": 3e-4, "warmup_steps": 0.1, "max_length": 2048}
    assert wanted.items() <= config.training.items()
    wanted = {"temperature": 0.7, "top_p": 0.75, "top_k": 40, "max_new_tokens": 128}
    wanted |= {"repetition_penalty": 1.2, "repetition_penalty_scope": "generated"}
    assert config.generation == wanted


def test_article_file_differs_only_where_the_article_does() -> None:
    ours, article = (
        load_config(ROOT / "configs" / f"{name}.yaml").model_dump() for name in ("calm7b", "calm7b-article")
    )
    differing = {
        f"{section}.{key}": value
        for section, values in article.items()
        for key, value in (values or {}).items()
        if ours[section][key] != value
    }
    assert differing == {
        "data.truncation": "end",
        "prompt.template": "alpaca-en",
        "training.warmup_steps": 100,
        "training.max_length": 256,
        "training.per_device_train_batch_size": 2,  # which decides about memory alone
        "generation.repetition_penalty": 5.0,
        "generation.repetition_penalty_scope": "all",
        "run.directory": "runs/calm7b-article",
    }


@pytest.mark.parametrize(
    ("override", "words"),
    [
        # Unknown keys and sections, with the nearest known one.
        ("lora.lora_alpah=16", "lora.lora_alpah: unknown key; did you mean lora_alpha?"),
        ("training.r=8", "training.r: unknown key; r belongs to lora"),
        ("model.load_in_8bit=true", "model.load_in_8bit: unknown key; load_in_8bit belongs to quantization"),
        ("training.lora_droput=0", "training.lora_droput: unknown key; did you mean lora.lora_dropout?"),
        ("training.total_batchsize=8", "training.total_batchsize: unknown key; did you mean total_batch_size?"),
        ("generation.repetition_scope=all", "did you mean repetition_penalty_scope?"),
        ("eval.qqq=1", "eval.qqq: unknown key; known: data, columns, rows_per_category, "),
        ("quantization.qqq=1", "quantization.qqq: unknown key; transformers.BitsAndBytesConfig has the keys"),
        ("traning.seed=1", "traning: unknown section; did you mean training?"),
        ("learning_rate=1e-4", "learning_rate: unknown section; learning_rate belongs to training"),
        ("qqq.x=1", "qqq: unknown section; known: model, data"),
        # Wrong types: a string is no number, a float no integer, a boolean no integer.
        ("training.learning_rate=fast", 'training.learning_rate: expected a finite number, got "fast"'),
        ("training.learning_rate='3e-4'", 'training.learning_rate: expected a finite number, got "3e-4"'),
        ("training.learning_rate=.nan", "training.learning_rate: expected a finite number, got NaN"),
        ("lora.r=8.0", "lora.r: expected an integer, got 8.0"),
        ("lora.r=true", "lora.r: expected an integer, got true"),
        ("lora.r=", "lora.r: expected an integer, got null"),
        ("lora.target_modules=[1]", "lora.target_modules: expected text or a list of texts or null, got [1]"),
        ("training.total_batch_size=many", 'training.total_batch_size: expected an integer, got "many"'),
        ("training.train_on_inputs=no", 'training.train_on_inputs: expected true or false, got "no"'),
        ("training.lr_scheduler_type=cosin", "training.lr_scheduler_type: expected one of linear, cosine"),
        ("training.optim=adamw_troch", '…, got "adamw_troch"; did you mean adamw_torch?'),
        (
            "quantization={load_in_4bit: true, bnb_4bit_quant_type: nf5}",
            "bnb_4bit_quant_type: expected one of fp4, nf4",
        ),
        ("model.device=gpu", 'model.device: expected one of auto, cpu, cuda, got "gpu"'),
        ("model.revision=1e10", "model.revision: expected text or null, got 10000000000.0; put it in quotes"),
        ("lora.init_lora_weights=pissa", 'expected true or false or one of gaussian, got "pissa" (the others change'),
        ("lora.bias=all", 'lora.bias: expected one of none, got "all" (biases are the base\'s'),
        (
            "prompt.template=alpaca-jp",
            "prompt.template: expected one of alpaca-ja, alpaca-ja-context-first, alpaca-en, chat, "
            "chat-context-first or a mapping",
        ),
        ("data=3", "data: expected a mapping, got 3"),
        ("eval.rows_per_category=0", "eval.rows_per_category: must be at least 1, got 0"),
        # Keys that the pipeline owns.
        (
            "training.gradient_accumulation_steps=4",
            "training.gradient_accumulation_steps: not set here; use training.total",
        ),
        ("training.output_dir=x", "training.output_dir: not set here; use run.directory"),
        (
            "training.packing=true",
            "training.packing: not set here; the pipeline lays out the batches itself, use training.p",
        ),
        ("training.bf16=true", "training.bf16: not set here; use model.dtype"),
        ("training.warmup_ratio=0.1", "training.warmup_ratio: not set here; use training.warmup_steps"),
        ("training.gradient_checkpointing=true", "its new name is training.activation_checkpointing"),
        ("training.resume_from_checkpoint=x", "use train_sft.py's option --resume"),
        ("lora.task_type=CAUSAL_LM", "lora.task_type: not set here"),
        ("generation.do_sample=true", "generation.do_sample: not set here; use generation.temperature"),
        ("generation.max_length=10", "generation.max_length: not set here; use generation.max_new_tokens"),
        # Values out of range, and contradictions.
        ("training.learning_rate=0", "training.learning_rate: must be above 0"),
        ("training.max_length=null", "training.max_length: expected an integer, got null"),
        ("training.max_length=8", "training.max_length: must be at least 16, got 8"),
        ("generation.temperature=-0.1", "generation.temperature: must be at least 0"),
        ("generation.repetition_penalty=0", "generation.repetition_penalty: must be above 0"),
        ("generation.stop_strings=[1]", "generation.stop_strings: expected text or a list of texts or null, got [1]"),
        ("generation.stop_strings=['']", 'generation.stop_strings: must not be empty, got ""'),
        ("generation.top_p=1.5", "generation.top_p: must be at most 1 (1 keeps every token), got 1.5"),
        ("data.test_share=0.98", "data.test_share: 0.98 with data.validation_share 0.02 leaves nothing"),
        ("data.test_share=1", "data.test_share: must be below 1, got 1"),
        ("training.pack=sometimes", 'training.pack: expected true or false or one of auto, got "sometimes"'),
        (
            "quantization={load_in_4bit: true, load_in_8bit: true}",
            "quantization.load_in_4bit: contradicts load_in_8bit",
        ),
        ("quantization={}", "quantization: neither load_in_4bit nor load_in_8bit"),
        ("quantization.load_in_4bit=false", "quantization: neither load_in_4bit nor load_in_8bit"),
        # How often categories are seen.
        ("data.balance={}", "data.balance: weights and temperature are both missing; give exactly one"),
        ("data.balance={weights: {open: 2}, temperature: 0.5}", "data.balance: weights and temperature contradict"),
        ("data.balance={weights: {open: 2}, by: category}", "data.balance: by says what temperature evens out"),
        (
            "data.groups={社内: opn}",
            'data.groups.社内: expected one of open, context, other, got "opn"; did you mean open?',
        ),
        ("data.groups={Open QA: open, open_qa: other}", "data.groups: open_qa is in two groups; give it one"),
        ("data.groups={1: open}", "data.groups.1: expected text, got"),
        (
            "data.groups=open",
            'data.groups: expected a mapping, got "open"; it gives categories their groups, for example '
            "data.groups={社内手続き: open}",
        ),
        ("data.groups=経費:other", "for example data.groups={経費: other}"),
        ("data.groups={other: 経費}", "the category comes first, then its group: data.groups={経費: other}"),
        ("data.columns=質問", "(such as {instruction: 質問, output: 回答})"),
        ("eval.columns={output: 回答}", "eval.columns: names columns of eval.data, which is null"),
        ("data.balance.weights.open=-1", "data.balance.weights: open must be at least 0 and at most 1000, got -1"),
        ("data.balance.weights.open=.inf", "data.balance.weights.open: expected a finite number, got Infinity"),
        ("data.balance.weights.open=two", 'data.balance.weights.open: expected a finite number, got "two"'),
        ("data.balance.weights={1: 2}", "data.balance.weights.1: expected text, got"),
        ("data.balance.weights={open: 0, context: 0, other: 0}", "data.balance.weights: every category has weight 0"),
        ("data.balance.weights=2", "data.balance.weights: expected a mapping or null, got 2"),
        ("data.balance.temperature=1.5", "data.balance.temperature: must be at most 1, got 1.5"),
        ("data.balance.temperature=hot", "data.balance.temperature: expected a finite number or null"),
        ("data.balance={temperature: 1, by: categry}", "data.balance.by: expected one of group, category, got"),
        ("data.balance.temprature=1", "data.balance.temprature: unknown key; known: weights, temperature, by"),
        ("data.balance=2", "data.balance: expected a mapping or null, got 2"),
        # Overrides that are not understood.
        ("training", "'training' is not section.key=value"),
        ("training.=1", "'training.=1' is not section.key=value"),
        ("lora.target_modules=[a,b", "lora.target_modules: line 1: "),
        ("prompt.template.with_input=x", "prompt.template.with_input: "),
    ],
)
def test_wrong_override(minimal: Path, override: str, words: str) -> None:
    minimal.write_text(MINIMAL + "prompt: {template: alpaca-ja}\n")
    text = message(minimal, override)
    assert text.startswith("command line: ")
    assert words in text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.max_length=2147483648", "must be at most 1,048,576, got 2147483648"),
        ("training.total_batch_size=1e30", "expected an integer, got 1e+30"),
        ("training.total_batch_size=4294967296", "must be at most 1,048,576"),
        ("training.per_device_train_batch_size=1e30", "expected an integer"),
        ("training.per_device_train_batch_size=100000", "must be at most 65,536"),
        ("training.num_train_epochs=1e300", "must be at most 10,000"),
        ("training.learning_rate=1e30", "must be at most 100"),
        ("training.adam_epsilon=-1e308", "must be at least 0, got -1e+308"),
        ("training.adam_beta1=1", "must be below 1"),
        ("training.weight_decay=1e9", "must be at most 1,000"),
        ("training.warmup_steps=-1", "must be at least 0"),
        ("training.seed=4294967296", "must be below 4,294,967,296"),
        ("training.save_total_limit=-1", "must be at least 0"),
        ("training.dataloader_num_workers=100000", "must be at most 1,024"),
        ("training.ddp_timeout=9223372036854775808", "must be below 2,147,483,648"),
        ("training.report_to=null", "expected text or a list of texts, got null"),
        ("training.log_level=loud", "expected one of detail, debug, info"),
        ("training.optim_args=x", 'expected text or null, got "x" (name=value, name=value)'),
        ("lora.r=9223372036854775808", "must be at most 65,536"),
        ("lora.lora_alpha=1e3", "expected an integer"),
        ("lora.layers_to_transform=[0, 2147483648]", "must be below 2,147,483,648, got 2147483648"),
        ("lora.alpha_pattern=null", "expected a mapping, got null"),
        ("lora.alpha_pattern.q_proj=1e30", "must be at most 1,048,576, got 1e+30"),
        ("lora.rank_pattern={q_proj: 0}", "must be at least 1, got 0"),
        ("lora.rank_pattern={'q.*': 2}", "takes names of modules; a regular expression would not be loaded again"),
        ("lora.exclude_modules=[a, 'b|c']", "takes names of modules; a regular"),
        ("quantization={load_in_8bit: true, llm_int8_threshold: 1e300}", "must be at most 1,000,000,000"),
        ("generation.num_beams=2147483648", "must be at most 1,024"),
        ("generation.max_new_tokens=2147483648", "must be at most 1,048,576"),
        ("generation.temperature=1e308", "must be at most 1,000 (0 answers greedily)"),
        ("generation.bad_words_ids=[[9223372036854775808]]", "must be below 2,147,483,648"),
        ("generation.length_penalty=-1e308", "must be at least -1,000"),
        ("eval.resamples=9223372036854775808", "must be at most 1,000,000"),
        ("eval.batch_tokens=9223372036854775808", "must be below 2,147,483,648"),
        ("eval.seed=1e30", "expected an integer"),
        ("data.train_rows=9223372036854775808", "must be below 2,147,483,648"),
    ],
)
def test_a_number_out_of_bounds_is_a_line_with_the_bound(minimal: Path, override: str, words: str) -> None:
    text = message(minimal, override)
    key = override.partition("=")[0]
    assert text.startswith(f"command line: {key}")
    assert words in text


NUMERIC = [
    f"{section}.{key}"
    for section, cls in SECTIONS.items()
    for key, field in cls.model_fields.items()
    if re.search(r"\b(int|float)\b", str(field.annotation)) and "dict" not in str(field.annotation)
]


@pytest.mark.parametrize("key", NUMERIC)
def test_every_number_has_bounds(minimal: Path, key: str) -> None:
    for value in (2**63, -(2**63), 10**400, 1e308, -1e308):
        assert key in message(minimal, f"{key}={value}")


ABSENT = [
    ("training.report_to=tensorboard", "tensorboard tensorboardX", "tensorboard"),
    ("training.report_to=[none]", "", ""),
    ("training.report_to=all", "", ""),
    ("training.report_to=[wandb, mlflow]", "wandb", "wandb"),
    ("training.report_to=comet_ml", "comet_ml", "comet-ml"),
    ("training.report_to=azure_ml", "azureml", "azureml-core"),
    ("training.report_to=dagshub", "mlflow", "mlflow"),
    ("training.optim=galore_adamw_8bit", "galore_torch", "galore-torch"),
    ("training.optim=apollo_adamw", "apollo_torch", "apollo-torch"),
    ("training.optim=adalomo", "lomo_optim", "lomo-optim"),
    ("training.optim=grokadamw", "grokadamw", "grokadamw"),
    ("training.optim=schedule_free_sgd", "schedulefree", "schedulefree"),
    ("training.optim=adamw_torch_8bit", "torchao", "torchao"),
    ("training.optim=stable_adamw", "optimi", "torch-optimi"),
    ("training.optim=adamw_anyprecision", "torchdistx", "git+https://github.com/pytorch/torchdistx"),
    ("training.optim=paged_adamw_8bit", "bitsandbytes", "bitsandbytes"),
    ("training.optim=adamw_torch", "", ""),
    ("quantization.load_in_4bit=true", "bitsandbytes", "bitsandbytes"),
    ("model.attention=flash_attention_2", "flash_attn kernels", "flash-attn"),
    ("generation.cache_implementation=quantized", "optimum hqq", "optimum-quanto"),
]
"""A setting, the modules without which it does not work, and what to install then."""


@pytest.mark.parametrize(("override", "modules", "package"), ABSENT, ids=[case[0] for case in ABSENT])
def test_a_value_that_needs_a_package_says_so_where_there_is_none(
    minimal: Path, monkeypatch: pytest.MonkeyPatch, override: str, modules: str, package: str
) -> None:
    absent = set(modules.split())

    def find_spec(name: str) -> object:
        found = name.partition(".")[0] not in absent
        if not found and "." in name:
            raise ModuleNotFoundError(name)  # as for what is in a package that is absent
        return object() if found else None

    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    if not absent:
        load_config(minimal, [override])
        return
    text = message(minimal, override)
    assert text.startswith(f"command line: {override.partition('=')[0].partition('.load_in')[0]}: ")
    assert f"pip install {package}" in text
    if override.startswith("training."):  # a finished run answers without what only training needs
        load_config(minimal, [override], to_train=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    load_config(minimal, [override])


def test_a_reporter_that_is_not_known_is_a_line(minimal: Path) -> None:
    for name in ("tensorbord", "[none, all]"):
        assert "is none of none, all, azure_ml, clearml" in message(minimal, f"training.report_to={name}")


def test_what_needs_a_package_is_what_the_libraries_say_needs_one() -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
    from transformers.trainer_optimizer import _OPTIMIZER_HANDLERS, OptimizerContext
    from transformers.training_args import TrainingArguments

    assert set(REPORTERS) == set(INTEGRATION_TO_CALLBACK)
    for name, handler in _OPTIMIZER_HANDLERS.items():
        args = TrainingArguments(optim=name, use_cpu=True)
        package = next((OPTIMIZERS[x] for x in OPTIMIZERS if re.fullmatch(x, name.value)), None)
        try:
            handler(OptimizerContext(args, None, {}, {}, {}))
            missing = False
        except (ImportError, ValueError):
            missing = True
        assert missing is (package is not None and not is_installed(package)), name


def test_errors_in_the_file_name_the_file(minimal: Path) -> None:
    minimal.write_text(MINIMAL + "lora: {lora_alpah: 16}\n")
    assert message(minimal, "lora.r=4") == f"{minimal}: lora.lora_alpah: unknown key; did you mean lora_alpha?"


def test_a_contradiction_is_blamed_on_the_command_line_that_caused_it(minimal: Path) -> None:
    minimal.write_text(MINIMAL + "quantization: {load_in_8bit: true}\n")
    assert message(minimal, "quantization.load_in_4bit=true").startswith("command line: quantization.load_in_4bit")
    assert message(minimal, "model.device=cpu", "model.dtype=float16").startswith("command line: model.dtype: float16")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: {base: x}\ndata: {path: y}", "training.total_batch_size: missing"),
        ("data: {path: y}\ntraining: {total_batch_size: 2}", "model.base: missing"),
        (MINIMAL + "lora:\n  r: 8\n  r: 16\n", "line 7: r is given twice, first on line 6"),
        (MINIMAL + "data: {path: y}\n", "line 5: data is given twice"),
        ("model: [1\ndata: 3\n", "line 2: "),
        ("model: {base: !!python/name:os.system x}", "line 1: could not determine a constructor"),
        ("- model\n", "not a mapping of sections"),
        ("", "not a mapping of sections"),
        (MINIMAL + "1: x\n", "1: unknown section"),
        (MINIMAL + "lora: {1: x}\n", "lora.1: unknown key"),
        (MINIMAL + "eval: {1: x}\n", "eval.1: unknown key"),
        (MINIMAL + "eval: 3\n", "eval: expected a mapping, got 3"),
    ],
)
def test_wrong_file(minimal: Path, text: str, words: str) -> None:
    minimal.write_text(text)
    said = message(minimal)
    assert said.startswith(f"{minimal}:")
    assert words in said


def test_missing_and_unreadable_files(minimal: Path) -> None:
    assert "minimal.yaml" in message(minimal.with_name("minmal.yaml"))
    assert "no such configuration file" in message(minimal.parent / "absent" / "x.yaml")
    assert "is not a file" in message(minimal.parent)
    minimal.write_bytes("model: {base: モデル}".encode("shift_jis"))
    assert "not UTF-8" in message(minimal)


@pytest.mark.parametrize(
    ("with_input", "without_input", "words"),
    [
        ("{instruction}", "{instruction}", "prompt.template.with_input: must contain {input} and {instruction}"),
        ("{instruction} {input}", "{input}", "prompt.template.without_input: {input} cannot be filled in"),
        ("{instruction} {input} {output}", "{instruction}", "prompt.template.with_input: {output} cannot be filled in"),
        ("{instruction!r} {input}", "{instruction}", "prompt.template.with_input: {instruction} cannot"),
        ("{instruction} {input", "{instruction}", "prompt.template.with_input: expected '}'"),
        (
            "{instruction}\0{input}",
            "{instruction}",
            "prompt.template.with_input: is not text: it holds",
        ),
        (3, "{instruction}", "prompt.template.with_input: expected text, got 3"),
    ],
)
def test_wrong_template(minimal: Path, with_input: object, without_input: str, words: str) -> None:
    template = {"with_input": with_input, "without_input": without_input}
    minimal.write_text(MINIMAL + yaml.safe_dump({"prompt": {"template": template}}))
    assert words in message(minimal)


def test_own_template(minimal: Path, tmp_path: Path) -> None:
    template = {"with_input": "問い: {instruction}\n{input}\n{{}}\n", "without_input": "問い: {instruction}\n"}
    minimal.write_text(MINIMAL + yaml.safe_dump({"prompt": {"template": template}}))
    config = load_config(minimal)
    assert config.prompt.model_dump() == {"template": template}
    (tmp_path / "again.yaml").write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(tmp_path / "again.yaml") == config
    assert "prompt.template.inputs: unknown key" in message(minimal, "prompt.template.inputs=x")


def test_numbers_and_words_are_read_as_yaml_1_2(minimal: Path) -> None:
    minimal.write_text("""
model: {base: 'x', revision: '3e-4', tokenizer: "no"}
data: {path: y, revision: 2024-01-01}
training: {total_batch_size: 32, learning_rate: 3e-4, weight_decay: 1e-5, save_strategy: no, num_train_epochs: 2}
generation: {repetition_penalty: 5}
""")
    config = load_config(minimal)
    assert config.training["learning_rate"] == 3e-4
    assert config.training["weight_decay"] == 1e-5
    assert config.training["save_strategy"] == "no"
    assert isinstance(config.training["num_train_epochs"], float)
    assert isinstance(config.generation["repetition_penalty"], float)
    assert config.data.revision == "2024-01-01"
    minimal.write_text(config.to_yaml())
    assert load_config(minimal) == config


def test_overrides(minimal: Path) -> None:
    config = load_config(
        minimal,
        [
            "quantization.load_in_4bit=true",
            "lora.target_modules=[a,b]",
            "training.lr_scheduler_kwargs.num_cycles=2",
            "lora.r=4",
            "lora.r=2",
            "run.directory=elsewhere/mine",
        ],
    )
    assert config.quantization == {"load_in_4bit": True}
    assert config.lora["target_modules"] == ["a", "b"]
    assert config.training["lr_scheduler_kwargs"] == {"num_cycles": 2}
    assert config.lora["r"] == 2
    assert config.name == "mine"
    calm = load_config(ROOT / "configs" / "calm7b.yaml", ["quantization=null", "generation.temperature=0"])
    assert calm.quantization is None
    assert calm.generation["temperature"] == 0.0
    assert calm.generation["top_p"] == 0.75


def test_what_changes_a_training_is_named_and_the_rest_is_not(minimal: Path) -> None:
    first = load_config(minimal)
    later = ["generation.temperature=1", "eval.seed=3", "run.directory=x", "training.logging_steps=5"]
    assert training_changes(first, load_config(minimal, later)) == []
    assert training_changes(first, load_config(minimal, ["training.seed=3", "lora.r=4"])) == [
        "lora.r was 8, is 4",
        "training.seed was 42, is 3",
    ]
    assert training_changes(first, load_config(minimal, ["training.weight_decay=0.1"])) == [
        "training.weight_decay was null, is 0.1"
    ]
    whole = load_config(minimal, ["lora=null"])
    assert [change.partition(" is ")[0] for change in training_changes(whole, first)] == ["lora was null,"]
    assert [change.rpartition(" is ")[2] for change in training_changes(first, whole)] == ["null"]


def test_a_template_that_is_written_out_is_the_one_of_its_text(minimal: Path) -> None:
    written = {key: getattr(TEMPLATES["alpaca-ja-context-first"], key) for key in ("with_input", "without_input")}
    named = load_config(minimal, ["prompt.template=alpaca-ja-context-first"])
    assert training_changes(named, load_config(minimal, [f"prompt.template={json.dumps(written)}"])) == []
    written["without_input"] += " "
    (change,) = training_changes(named, load_config(minimal, [f"prompt.template={json.dumps(written)}"]))
    assert change.startswith('prompt.template was "alpaca-ja-context-first", is {"with_input"')


@pytest.mark.parametrize(
    "balance",
    ["{weights: {context: 2, closed_qa: 0.5, other: 0}}", "{temperature: 0.5}", "{temperature: 0, by: category}"],
)
def test_a_balance_survives_the_round_trip_and_changes_the_training(
    minimal: Path, tmp_path: Path, balance: str
) -> None:
    plain, balanced = load_config(minimal), load_config(minimal, [f"data.balance={balance}"])
    assert plain.data.balance is None
    (tmp_path / "again.yaml").write_text(balanced.to_yaml(), encoding="utf-8")
    assert load_config(tmp_path / "again.yaml", ["run.directory=runs/minimal"]) == balanced
    (change,) = training_changes(plain, balanced)
    assert change.startswith('data.balance was null, is {"weights": ')
    assert load_config(tmp_path / "again.yaml", ["data.balance=null"]).data.balance is None


def test_refusals_point_to_keys_that_exist() -> None:
    for section, reasons in REFUSED.items():
        for key, reason in reasons.items():
            for home, name in re.findall(r"\b(\w+)\.(\w+)", reason):
                if home in Config.model_fields:
                    assert name in SECTIONS[home].model_fields, f"{section}.{key}: {reason}"


def test_table_is_that_of_the_installed_libraries() -> None:
    table = library_table()
    assert json.loads(TABLE.read_text(encoding="utf-8")) == table
    for section, types in table.items():
        assert types, section
        shared = set(types) & set(OWN_KEYS[section].model_fields if section in OWN_KEYS else ())
        assert shared <= {"activation_checkpointing"}  # ours has another value in addition
        assert set(key_types(section)) == set(types) - set(REFUSED[section])
        own = set(SECTIONS[section].model_fields) - set(types)
        assert own == (set(OWN_KEYS[section].model_fields) - shared if section in OWN_KEYS else set())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_library_classes_accept_the_sections(path: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    from peft import LoraConfig
    from transformers import BitsAndBytesConfig, GenerationConfig
    from trl import SFTConfig

    config = load_config(path)
    recwarn.clear()
    ours = {"output_dir": str(tmp_path), "bf16": False, "use_cpu": True, "activation_checkpointing": False}
    arguments = SFTConfig(**ours, **config.library("training"))
    assert not [str(warning.message) for warning in recwarn if "deprecated" in str(warning.message)]
    assert arguments.save_steps == config.training["save_steps"]
    assert LoraConfig(**config.library("lora")).r == config.lora["r"]
    GenerationConfig(**config.library("generation"), do_sample=config.generation["temperature"] > 0)
    if config.quantization is not None:
        BitsAndBytesConfig(**config.library("quantization"))


def test_checking_a_configuration_is_fast_and_needs_no_torch() -> None:
    code = (
        "import sys; from sft.config.load import load_config; load_config('configs/calm7b.yaml');"
        "assert not {'torch', 'transformers', 'trl', 'peft'} & set(sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
