"""Every command's line: help that teaches, its version, and wrong words answered with what was probably meant."""

import re
from pathlib import Path

import pytest

import eval.__main__
import infer
import train_sft
from sft import __version__
from sft.config.library.keys import LIBRARY_CLASSES
from sft.config.load import load_config
from sft.config.reference import keys_of
from sft.config.sections import OWN_KEYS, SECTIONS

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "train_sft", "infer", "eval.__main__", "sft.config.__main__", "sft.data.__main__", "sft.export.__main__",
    "sft.runs.__main__", "sft.build_base",
)  # fmt: skip
EVAL = ("score", "compare", "sweep", "rate", "answer", "judge")


@pytest.mark.parametrize("words", [*((name,) for name in COMMANDS), *(("eval.__main__", name) for name in EVAL)])
def test_every_command_tells_its_version_and_its_use(program, words):
    assert program(*words, "--version") == (0, f"calm-sft {__version__}\n", "")
    shown = program(*words, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "--help" in shown.stdout


@pytest.mark.parametrize("command", [train_sft, infer, eval.__main__])
def test_help_names_the_settings_people_change_and_where_the_others_are(command, tmp_path):
    """Each of them can be set as it stands there."""
    settings = re.findall(r"^    (\w+\.\w+=\S+) {2,}\S", command.__doc__, re.MULTILINE)
    assert len(settings) == 5
    load_config(ROOT / "configs" / "tiny.yaml", settings)
    assert "`python -m sft.config` lists all settings" in command.__doc__


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_indented_in_every_help(program, name):
    shown = program(name, "--help").stdout.partition("options:")[0]
    assert re.search(r"^    (?:python|accelerate) ", shown, re.MULTILINE)
    assert not re.search(r"^(?:python|accelerate) ", shown, re.MULTILINE)


@pytest.mark.parametrize("words", [["train_sft"], ["eval.__main__"], ["sft.data.__main__"], ["sft.export.__main__"]])
def test_nothing_typed_is_answered_with_the_help(program, words):
    result = program(*words)
    assert (result.returncode, result.stdout) == (2, "")
    assert "python" in result.stderr.split("options:")[0]
    assert re.search(r"\nerror: the following arguments are required: \S+\n$", result.stderr)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train_sft configs/tiny.yaml --learning_rate 1e-4", "settings are written training.learning_rate=1e-4"),
        ("train_sft configs/tiny.yaml --learning-rate=1e-4", "settings are written training.learning_rate=1e-4"),
        ("train_sft --training.seed 1", "settings are written training.seed=1"),
        ("train_sft configs/tiny.yaml --seed", "settings are written training.seed=… or eval.seed=…"),
        ("train_sft configs/tiny.yaml --lora_alpa 8", "did you mean the setting lora.lora_alpha=8?"),
        ("train_sft configs/tiny.yaml --output_dir x", "training.output_dir is not set here: use run.directory"),
        ("train_sft configs/tiny.yaml --dryrun", "did you mean --dry-run?"),
        (
            "train_sft configs/tiny.yaml --qqq 1",
            "settings are written section.key=value, and python -m sft.config lists",
        ),
        ("train_sft training.seed=1", "the configuration file comes first, such as configs/calm7b-4bit.yaml"),
        ("train_sft configs/calm7b-4bt.yaml", "did you mean configs/calm7b-4bit.yaml"),
        ("train_sft calm7b", "no such configuration file; did you mean configs/calm7b.yaml?"),
        ("infer runs/a --max_new_tokens 9 --both", "settings are written generation.max_new_tokens=9"),
        ("infer --instructions x", "did you mean --instruction?"),
        ("eval.__main__ runs/a --batch_tokens 9", "settings are written eval.batch_tokens=9"),
        ("eval.__main__ sweep runs/a --temperature 1", "settings are written generation.temperature=1"),
        ("eval.__main__ comapre runs/a runs/b", "neither a run nor a command; did you mean compare?"),
        ("eval.__main__ rate a b --sed 1", "did you mean --seed?"),
        ("sft.data.__main__ data/faq.csv --columns x", "settings are written data.columns=x or eval.columns=x"),
        ("sft.runs.__main__ --language ja", "no such option"),
        ("sft.config.__main__ learnin_rate", "did you mean the setting training.learning_rate=…?"),
        ("sft.config.__main__ packing", "use training.pack"),
    ],
)
def test_a_wrong_word_is_answered_with_what_was_meant(program, words, said):
    result = program(*words.split())
    assert (result.returncode, result.stdout) == (2, "")
    first, *others = result.stderr.splitlines()
    assert first.startswith("error: ")
    assert said in first
    assert not others or others[0].endswith("--help shows how it is used")


def test_every_setting_is_listed_and_explained(program):
    listed = program("sft.config.__main__").stdout
    for section in SECTIONS:
        explained = program("sft.config.__main__", section).stdout
        for key in SECTIONS[section].model_fields:
            assert re.search(rf"\b{key}\b", listed), key
            assert re.search(rf"^{section}\.{key}[ =].* {{4}}\w", explained, re.MULTILINE), key


def test_one_setting_is_explained_by_its_name_with_and_without_its_section(program):
    for name in ("training.keep_best", "keep_best", "training.keep_best=overall"):
        assert program("sft.config.__main__", name).stdout.startswith(
            "training.keep_best=null    one of overall, open, context, other or null\n"
            "    Whose validation loss says which step the run ends with"
        )
    assert (
        "training.learning_rate=0.0003    a finite number, above 0, at most 100\n"
        in program("sft.config.__main__", "learning_rate").stdout
    )
    assert "\ndata.balance.by=" in program("sft.config.__main__", "data.balance").stdout


def test_every_key_of_the_project_itself_has_a_text():
    for section in SECTIONS:
        own = OWN_KEYS[section].model_fields if section in OWN_KEYS else SECTIONS[section].model_fields
        for key in keys_of(section) if section not in LIBRARY_CLASSES or section in OWN_KEYS else ():
            if key.name.partition(".")[2] in own or key.name.count(".") > 1:
                assert key.text, key.name


def test_the_defaults_that_are_shown_are_those_of_a_configuration(program):
    config = load_config(ROOT / "configs" / "calm7b.yaml").model_dump()
    defaults = {key.name: key.default for section in ("eval", "generation") for key in keys_of(section)}
    for key, value in config["eval"].items():
        assert defaults[f"eval.{key}"] == ("null" if value is None else str(value).lower()), key
    assert defaults["generation.top_k"] == "0"
    assert defaults["generation.num_beams"] == "left to transformers.GenerationConfig"


def test_the_settings_in_the_documents_are_settings():
    known = {key.name for section in SECTIONS for key in keys_of(section)} | {"data.balance.weights.context"}
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        text = page.read_text(encoding="utf-8")
        for name in re.findall(rf"(?<![\w.])((?:{'|'.join(SECTIONS)})(?:\.(?!key=)[a-z_]\w*)+)=", text):
            assert name in known, f"{page.name}: {name}"
