"""Runs and adapters that came from elsewhere: nothing in them is executed, read outside of them, or loaded by half."""

import contextlib
import json
import pickle
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from made_up import signed
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from sft.model.adapter import AdapterConfig, check_adapter, check_trained_on
from sft.model.load import load_base, load_skeleton, load_tokenizer
from sft.model.lora import load_adapter
from sft.prompt.template import ALPACA_JA, PromptTemplate, chat_template
from sft.run.directory import require_finished, run_config
from sft.system.errors import UserError

CPU = torch.device("cpu")
QUICK = "generation.max_new_tokens=2"
COMMANDS: dict[str, Callable[[Path], list[object]]] = {
    "infer": lambda run: ["infer", run, "--instruction", "首都は?", QUICK],
    "eval": lambda run: ["eval.__main__", run, "eval.rows_per_category=1", "eval.resamples=10", QUICK],
    "export": lambda run: ["sft.export.__main__", run, "--base-id", "none"],
    "merge": lambda run: ["sft.export.__main__", run, "--merge"],
}


class Bomb:
    """A pickle that makes a file when it is loaded without restraint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def run(trained_run, tmp_path) -> Path:
    return shutil.copytree(trained_run, tmp_path / "run")


@pytest.fixture
def adapter(trained_run, tmp_path) -> Path:
    return shutil.copytree(trained_run / "adapter", tmp_path / "adapter")


@pytest.fixture(scope="module")
def base(tiny_base):
    """Loads the tiny base anew: PEFT changes the model that it is given."""
    return lambda: load_base(str(tiny_base), CPU, torch.float32)


def edit(path: Path, **changes: Any) -> None:
    """Change the fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


BOMBS = (
    "training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "pytorch_model.bin",
    "adapter_model.bin", "adapter_model.pkl",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_no_pickle_in_a_run_is_ever_loaded(run, tmp_path, program, command):
    ran = tmp_path / "ran"
    checkpoint = max(run.glob("checkpoints/checkpoint-*"))
    for directory in (run, run / "adapter", run / "checkpoints", checkpoint):
        for name in BOMBS:
            torch.save({"state": Bomb(ran)}, directory / name)
    (run / "adapter" / "training_args.bin").write_bytes(pickle.dumps(Bomb(ran)))  # without torch's zip around it
    result = program(*COMMANDS[command](signed(run)))
    assert result.returncode == 0, result.stderr
    assert not ran.exists()
    exported = run / "export" / "adapter"
    assert not exported.exists() or not {path.name for path in exported.iterdir()} & set(BOMBS)
    torch.load(run / "training_args.bin", weights_only=False)
    assert ran.exists()  # it would have run


@pytest.mark.parametrize(
    "names", [["optimizer.pt"], ["rng_state.pth"], ["scheduler.pt"], ["training_args.bin", "scaler.pt", *BOMBS[5:]]]
)
def test_a_pickle_in_a_checkpoint_does_not_run_when_training_resumes(run, tmp_path, program, names):
    ran = tmp_path / "ran"
    edit(run / "manifest.json", status="running")
    shutil.rmtree(run / "checkpoints" / "checkpoint-2")
    for name in names:
        torch.save({"state": Bomb(ran)}, run / "checkpoints" / "checkpoint-1" / name)
    with contextlib.suppress(Exception):  # whether it goes on depends on the file; that it does not run must not
        program("train_sft", run / "config.yaml", f"run.directory={run}", "--resume")
    assert not ran.exists()


@pytest.mark.parametrize("name", ["adapter_model.bin", "pytorch_model.bin"])
def test_an_adapter_that_is_a_pickle_is_refused(run, tmp_path, program, name):
    ran = tmp_path / "ran"
    weights = run / "adapter" / "adapter_model.safetensors"
    torch.save({**load_file(weights), "bomb": Bomb(ran)}, run / "adapter" / name)
    weights.unlink()
    for command in COMMANDS.values():
        result = program(*command(signed(run)))
        assert result.returncode == 2
        assert f"{name}: is a pickle, which could run code, and never loaded" in result.stderr
    assert not ran.exists()


def test_a_whole_model_of_a_run_is_safetensors_only(small_base):
    directory = small_base("open-calm")["base"]
    assert (Path(directory) / "pytorch_model.bin").is_file()
    with pytest.raises(UserError, match="cannot be loaded"):
        load_base(directory, CPU, torch.float32, safetensors_only=True)


TAMPERED: dict[str, tuple[dict[str, Any], str]] = {
    "another kind": ({"peft_type": "IA3"}, "peft_type: "),
    "a prompt instead of a LoRA": ({"peft_type": "PROMPT_TUNING", "tokenizer_name_or_path": "/etc"}, "peft_type: "),
    "an unknown kind": ({"peft_type": "../LORA"}, "peft_type: "),
    "another task": ({"task_type": "SEQ_CLS"}, "task_type: "),
    "a class of its own": (
        {"auto_mapping": {"base_model_class": "Popen", "parent_library": "subprocess"}},
        "auto_mapping: is set",
    ),
    "a module to import": ({"megatron_config": {"a": 1}, "megatron_core": "antigravity"}, "megatron_"),
    "an unknown key": ({"custom_module": "evil.py"}, "custom_module: is not a key"),
    "modules of its own": ({"modules_to_save": ["lm_head"]}, "modules_to_save: is set"),
    "layers again": ({"layer_replication": [[0, 2], [0, 2]]}, "layer_replication: is set"),
    "parameters": ({"target_parameters": ["lm_head.weight"]}, "target_parameters: is set"),
    "tokens": ({"trainable_token_indices": [1]}, "trainable_token_indices: is set"),
    "a base taken apart": ({"init_lora_weights": "pissa"}, "init_lora_weights: 'pissa' changed the base's weights"),
    "LoftQ": ({"loftq_config": {"loftq_bits": 4}}, "loftq_config: is set"),
    "EVA": ({"eva_config": {"rho": 2.0}}, "eva_config: is set"),
    "CorDA": ({"corda_config": {"cache_file": "/elsewhere/x", "covariance_file": "../x"}}, "corda_config: is set"),
    "Arrow": ({"arrow_config": {"top_k": 1}}, "arrow_config: is set"),
    "aLoRA": ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens: is set"),
    "biases": ({"bias": "all"}, "bias: is set"),
    "another base": ({"base_model_name_or_path": "../../elsewhere"}, "was trained on ../../elsewhere, and its run on "),
    "a base on the hub": ({"base_model_name_or_path": "evil/model"}, "was trained on evil/model, and its run on "),
    "a list for the base": ({"base_model_name_or_path": ["x"]}, "base_model_name_or_path: "),
    "a huge rank": ({"r": 10**9}, "r is 1000000000, and the weights have rank 8"),
    "a number beyond all": ({"r": 10**4000}, "r"),
    "another rank": ({"r": 4}, "r is 4, and the weights have rank 8"),
    "no rank": ({"r": 0}, "r: "),
    "a negative rank": ({"r": -8}, "r: "),
    "true for the rank": ({"r": True}, "r: "),
    "a rank for some": ({"rank_pattern": {"layers.0": 10**9}}, "r is 8, 1000000000, and the weights have rank 8"),
    "no alpha": ({"lora_alpha": 0}, "lora_alpha: "),
    "text for alpha": ({"lora_alpha": "16"}, "lora_alpha: "),
    "an expression that never ends": (
        {"target_modules": r"(?:.|.)*[^\w.]"},
        "target_modules: the regular expression takes too long",
    ),
    "an expression that is none": ({"target_modules": "("}, "is not a regular expression"),
    "an expression for nothing": ({"target_modules": "absent"}, "matches no module"),
    "expressions in a list": ({"target_modules": ["(a+)+$"]}, "target_modules"),
    "an expression as a rank's key": ({"rank_pattern": {"(a+)+$": 8}}, "rank_pattern"),
    "an expression as an alpha's key": ({"alpha_pattern": {"(a+)+$": 8}}, "alpha_pattern"),
    "an expression for layers": ({"layers_pattern": "(a+)+$", "layers_to_transform": 1}, "layers_pattern"),
    "an expression for exceptions": ({"exclude_modules": "(a+)+$"}, "exclude_modules"),
    "other modules": ({"target_modules": ["dense"]}, "does not fit the base model"),
    "more modules": ({"target_modules": ["query_key_value", "dense"]}, "does not fit the base model"),
    "fewer modules": ({"exclude_modules": ["layers.0.attention.query_key_value"]}, "does not fit the base model"),
    "paths as modules": ({"target_modules": ["../../etc/passwd"]}, "target_modules"),
    "no modules": ({"target_modules": None}, "target_modules"),
    "terminal escapes": ({"\x1b]0;x\x07": "\x1b[2J"}, "�]0;x�: is not a key"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_tampered_adapter_config_is_one_line(adapter, tiny_base, base, name):
    changes, words = TAMPERED[name]
    edit(adapter / "adapter_config.json", **changes)

    def load() -> None:
        check_trained_on(adapter, str(tiny_base))
        load_adapter(base(), adapter)

    with pytest.raises(UserError) as error:
        load()
    assert str(error.value).startswith(str(adapter))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"[]", "it: "),
        (b"[" * 100_000, "not JSON"),
        (b'{"peft_type": "LORA", "peft_type": "IA3"}', "a field is given twice"),
        (b"{}", "peft_type: Field required"),
        ('{"peft_type": "LORA"}'.encode("utf-16"), "not UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_an_adapter_config_that_is_none_is_one_line(run, program, content, words):
    path = run / "adapter" / "adapter_config.json"
    path.unlink() if content is None else path.write_bytes(content)
    for command in ("infer", "export"):
        result = program(*COMMANDS[command](signed(run)))
        assert (result.returncode, words in result.stderr) == (2, True), result.stderr


def test_what_is_harmless_in_an_adapter_config_stays_allowed(adapter, base):
    def logits() -> torch.Tensor:
        with torch.inference_mode():
            return load_adapter(base(), adapter).eval()(input_ids=torch.arange(2, 20)[None]).logits

    path, before = adapter / "adapter_config.json", logits()
    edit(path, inference_mode=False, lora_dropout=0.5, init_lora_weights="gaussian", peft_version="9.9", revision="x")
    assert torch.equal(logits(), before)
    edit(path, target_modules=r".*\.query_key_value")
    assert torch.equal(logits(), before)
    edit(path, alpha_pattern={"query_key_value": 64.0})
    assert not torch.equal(logits(), before)


def test_every_key_of_a_saved_lora_is_known(trained_run):
    saved = json.loads((trained_run / "adapter" / "adapter_config.json").read_text())
    defaults = LoraConfig(task_type="CAUSAL_LM").to_dict()
    assert set(saved) <= set(defaults)
    assert set(AdapterConfig.model_fields) <= set(defaults)


def test_an_adapter_of_another_shape_names_both_models(run, small_base, program):
    other = small_base("open-calm")["base"]
    result = program(*COMMANDS["infer"](run), f"model.base={other}")
    assert result.returncode == 2
    trained_on = json.loads((run / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert f"this adapter, trained on {trained_on}, does not fit the base model {other} " in result.stderr
    llama = small_base("llama-2")["base"]
    result = program(*COMMANDS["infer"](run), f"model.base={llama}")
    assert (result.returncode, llama in result.stderr) == (2, True), result.stderr


def first(tensors: dict[str, torch.Tensor]) -> str:
    return min(tensors)


def changed(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[bytes, Path], bytes]:
    def apply(whole: bytes, scratch: Path) -> bytes:
        tensors = load_file(scratch)
        save_file(change(tensors), scratch)
        return scratch.read_bytes()

    return apply


def header(text: bytes, length: int | None = None) -> Callable[[bytes, Path], bytes]:
    return lambda whole, scratch: struct.pack("<Q", len(text) if length is None else length) + text


DAMAGED: dict[str, tuple[Callable[[bytes, Path], bytes], str]] = {
    "no bytes": (lambda whole, scratch: b"", "cannot be read as safetensors"),
    "cut off": (lambda whole, scratch: whole[:-100], "cannot be read as safetensors"),
    "cut in the header": (lambda whole, scratch: whole[:50], "cannot be read as safetensors"),
    "more bytes": (lambda whole, scratch: whole + bytes(100), "cannot be read as safetensors"),
    "a huge header": (header(b"{}", 2**62), "cannot be read as safetensors"),
    "a header of all memory": (header(b"{}", 2**64 - 1), "cannot be read as safetensors"),
    "a header that is no JSON": (header(b"\xff{{"), "cannot be read as safetensors"),
    "a header too deep": (header(b'{"a":' * 100_000), "cannot be read as safetensors"),
    "a tensor beyond the end": (
        header(b'{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}'),
        "cannot be read as safetensors",
    ),
    "a shape that overflows": (
        header(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}}'),
        "cannot be read as safetensors",
    ),
    "a pickle": (lambda whole, scratch: pickle.dumps({"a": 1}), "cannot be read as safetensors"),
    "a NaN": (
        changed(lambda t: t | {first(t): t[first(t)].index_fill(0, torch.tensor([0]), torch.nan)}),
        "not finite numbers",
    ),
    "an infinity": (changed(lambda t: t | {first(t): t[first(t)] * torch.inf}), "not finite numbers"),
    "integers": (changed(lambda t: {name: tensor.int() for name, tensor in t.items()}), "is of torch.int32"),
    "8-bit floats": (
        changed(lambda t: {name: tensor.to(torch.float8_e4m3fn) for name, tensor in t.items()}),
        "is of torch.float8_e4m3fn",
    ),
    "zeros": (changed(lambda t: {name: tensor * 0 for name, tensor in t.items()}), "changes nothing"),
    "no tensors": (changed(lambda t: {}), "holds no LoRA weights"),
    "one tensor less": (changed(lambda t: {n: x for n, x in t.items() if n != first(t)}), "1 are missing"),
    "one tensor more": (changed(lambda t: t | {"base_model.model.lm_head.weight": torch.ones(1)}), "does not fit"),
    "a path for a name": (changed(lambda t: t | {"../../etc/passwd": torch.ones(1)}), "1 of its weights"),
    "escapes for a name": (changed(lambda t: t | {"\x1b[2J": torch.ones(1)}), "(�[2J, …)"),
    "half of the rank": (
        changed(lambda t: {n: x[:4] if "lora_A" in n else x[:, :4].contiguous() for n, x in t.items()}),
        "r is 8, and the weights have rank 4",
    ),
    "half of the rank of one": (
        changed(
            lambda t: {n: x if ".1." in n else x[:4] if "lora_A" in n else x[:, :4].contiguous() for n, x in t.items()}
        ),
        "r is 8, and the weights have rank 4, 8",
    ),
    "half of the width": (
        changed(lambda t: {n: x[:, :64].contiguous() if "lora_A" in n else x for n, x in t.items()}),
        "does not fit the base model",
    ),
    "a number for a matrix": (
        changed(lambda t: {n: x.flatten()[0] for n, x in t.items()}),
        "and the weights have rank",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_weights_are_one_line(adapter, base, tmp_path, name):
    damage, words = DAMAGED[name]
    path = adapter / "adapter_model.safetensors"
    scratch = shutil.copy(path, tmp_path / "scratch.safetensors")
    path.write_bytes(damage(path.read_bytes(), Path(scratch)))
    with pytest.raises(UserError) as error:
        load_adapter(base(), adapter)
    assert words in str(error.value)
    assert str(adapter) in str(error.value)
    assert "\x1b" not in str(error.value)


LINKS = ("adapter", "adapter/adapter_model.safetensors", "adapter/tokenizer.json", "config.yaml", "manifest.json",
         "split.json", "eval", "eval/report.md", "export", "checkpoints")  # fmt: skip


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("target", ["absolute", "with dots"])
def test_links_that_lead_out_of_a_run_are_not_followed(run, tmp_path, program, name, target):
    outside = tmp_path / "outside"
    inside = run / name
    if inside.exists():
        inside.rename(outside)  # the very same files, so that nothing else could be wrong
    else:
        outside.write_text("秘密")
        inside.parent.mkdir(exist_ok=True)
    up = Path(*[".."] * len(Path(name).parts), "outside")
    inside.symlink_to(outside if target == "absolute" else up)
    for command in COMMANDS.values():
        result = program(*command(run))
        assert result.returncode == 2
        assert f"error: {inside}: is a link out of {run}" in result.stderr
    assert outside.is_dir() or outside.read_bytes()
    assert not outside.is_file() or name not in ("eval", "eval/report.md") or outside.read_text() == "秘密"


def test_links_within_a_run_and_to_a_run_are_followed(run, tmp_path, program):
    (run / "adapter").rename(run / "elsewhere")
    (run / "adapter").symlink_to("elsewhere")
    (tmp_path / "link").symlink_to(run)
    assert program(*COMMANDS["infer"](tmp_path / "link")).returncode == 0


EVIL = "from pathlib import Path\nPath({!r}).touch()\nclass Evil: pass\n"


def plant(directory: Path, ran: Path) -> None:
    """Code beside model and tokenizer that their configurations name."""
    for name in ("evil.py", "tokenization_evil.py", "modeling_evil.py", "configuration_evil.py", "__init__.py"):
        (directory / name).write_text(EVIL.format(str(ran)))
    names = {
        "AutoConfig": "evil.Evil",
        "AutoModelForCausalLM": "evil.Evil",
        "AutoTokenizer": ["evil.Evil", "evil.Evil"],
    }
    for file in ("tokenizer_config.json", "config.json", "adapter_config.json"):
        if (directory / file).is_file():
            edit(directory / file, auto_map=names)


def test_code_beside_an_adapter_is_not_run(run, tmp_path, program):
    ran = tmp_path / "ran"
    plant(run / "adapter", ran)
    edit(run / "adapter" / "tokenizer_config.json", tokenizer_class="Evil")
    for command in ("infer", "export"):
        program(*COMMANDS[command](run))
        assert not ran.exists()


def test_a_run_cannot_ask_for_foreign_code_by_itself(run, tmp_path, program):
    ran = tmp_path / "ran"
    plant(run / "adapter", ran)
    shutil.copyfile(run / "adapter" / "adapter_config.json", tmp_path / "saved.json")
    saved = json.loads((tmp_path / "saved.json").read_text())
    saved.pop("auto_map")
    (run / "adapter" / "adapter_config.json").write_text(json.dumps(saved))
    edit(run / "adapter" / "tokenizer_config.json", tokenizer_class="Evil")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("trust_remote_code: false", "trust_remote_code: true"))
    signed(run)
    for command in COMMANDS.values():
        result = program(*command(run))
        assert result.returncode == 2
        assert "if you know that code, say so here, too: model.trust_remote_code=true" in result.stderr
    assert not ran.exists()
    assert not run_config(run, ["model.trust_remote_code=false"]).model.trust_remote_code
    with contextlib.suppress(Exception):
        program(*COMMANDS["infer"](run), "model.trust_remote_code=true")
    assert ran.exists()  # it would have run


def test_code_beside_a_base_is_not_run(tiny_base, tmp_path):
    ran = tmp_path / "ran"
    base = shutil.copytree(tiny_base, tmp_path / "base")
    plant(base, ran)
    edit(base / "config.json", model_type="evil")
    edit(base / "tokenizer_config.json", tokenizer_class="Evil")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_base(str(base), CPU, torch.float32)
    with contextlib.suppress(UserError):
        load_tokenizer(str(base))
    assert not ran.exists()


TOKENIZER_FILES: dict[str, tuple[str, bytes]] = {
    "no JSON": ("tokenizer.json", b"{"),
    "another JSON": ("tokenizer.json", b'{"version": "1.0", "model": {"type": "Evil"}}'),
    "no bytes": ("tokenizer.json", b""),
    "too deep": ("tokenizer.json", b"[" * 100_000),
    "a list as configuration": ("tokenizer_config.json", b"[]"),
    "no JSON as configuration": ("tokenizer_config.json", b"\xff\xfe"),
    "a configuration too deep": ("tokenizer_config.json", b"[" * 100_000),
    "a vocabulary elsewhere": (
        "tokenizer_config.json",
        b'{"tokenizer_class": "LlamaTokenizer", "vocab_file": "/etc/passwd", "tokenizer_file": "/etc/passwd"}',
    ),
}


@pytest.mark.parametrize("name", TOKENIZER_FILES)
def test_damaged_tokenizer_files_are_one_line(adapter, name):
    file, content = TOKENIZER_FILES[name]
    (adapter / file).write_bytes(content)
    if name == "a vocabulary elsewhere":  # the file of the directory is taken all the same
        assert load_tokenizer(str(adapter)).name_or_path == str(adapter)
        return
    with pytest.raises(UserError, match="cannot be loaded"):
        load_tokenizer(str(adapter))


BASE_FILES: dict[str, tuple[str, bytes]] = {
    "weights cut off": ("model.safetensors", b"\x10\0\0\0\0\0\0\0{"),
    "no weights": ("model.safetensors", b""),
    "a huge header": ("model.safetensors", struct.pack("<Q", 2**62) + b"{}"),
    "weights of another shape": ("config.json", b""),
    "a configuration that is none": ("config.json", b"[1]"),
    "a configuration too deep": ("config.json", b"[" * 100_000),
    "an index that leads out": (
        "model.safetensors.index.json",
        b'{"metadata": {}, "weight_map": {"lm_head.weight": "../../../etc/passwd"}}',
    ),
}


@pytest.mark.parametrize("name", BASE_FILES)
def test_damaged_base_files_are_one_line(tiny_base, tmp_path, name):
    file, content = BASE_FILES[name]
    base = shutil.copytree(tiny_base, tmp_path / "base")
    if name == "weights of another shape":
        edit(base / "config.json", hidden_size=64)
    else:
        (base / file).write_bytes(content)
    if file.endswith("index.json"):
        (base / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be loaded"):
        load_base(str(base), CPU, torch.float32)
    if file == "config.json" and content:
        with pytest.raises(UserError, match="cannot be loaded"):
            load_skeleton(str(base), torch.float32)


GOOD_TEMPLATE = {"name": "alpaca-ja", "with_input": ALPACA_JA.with_input, "without_input": ALPACA_JA.without_input}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"with_input": "{instruction.__class__.__mro__} {input}"}, "cannot be filled in"),
        ({"with_input": "{instruction:>1000000000} {input}"}, "cannot be filled in"),
        ({"with_input": "{instruction!r} {input}"}, "cannot be filled in"),
        ({"with_input": "{0} {input}"}, "cannot be filled in"),
        ({"with_input": "{instruction} {input"}, "expected '}'"),
        ({"with_input": "問い"}, "must contain {input} and {instruction}"),
        ({"without_input": "問い"}, "must contain {instruction}"),
        ({"with_input": 3}, "3 is not text"),
        ({"with_input": ["{instruction}"]}, "is not text"),
        ({"name": 3}, "3 is not text"),
        ({"end": 3}, "3 is not text"),
        ({"special_tokens": [3]}, "3 is not text"),
        ({"special_tokens": [""]}, "special_tokens is not a list of texts"),
        ({"special_tokens": "<s>"}, "special_tokens is not a list of texts"),
        ({"code": "evil.py"}, "unexpected keyword argument 'code'"),
    ],
)
def test_a_tampered_prompt_template_is_one_line(tmp_path, changes, words):
    (tmp_path / "prompt_template.json").write_text(json.dumps(GOOD_TEMPLATE | changes))
    with pytest.raises(UserError) as error:
        PromptTemplate.load(tmp_path)
    assert words in str(error.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 100_000, b'"x"', b"\xff"])
def test_a_prompt_template_that_is_none_is_one_line(tmp_path, content):
    (tmp_path / "prompt_template.json").write_bytes(content)
    with pytest.raises(UserError, match=r"prompt_template\.json"):
        PromptTemplate.load(tmp_path)


ATTACKS = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__['os'] }}",
    "globals of a built-in": "{{ lipsum.__globals__['os'].system('true') }}",
    "the environment": "{{ self._TemplateReference__context.environment }}",
    "an attribute by filter": "{{ (''|attr('__class__')).__mro__ }}",
    "a format": "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
    "a file": "{% include '/etc/passwd' %}",
    "an import": "{% import 'os' as os %}",
    "changing messages": "{{ messages.append(messages[0]) }}",
    "a long loop": "{% for i in range(10 ** 9) %}x{% endfor %}",
    "no template": "{% for",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_chat_template_that_attacks_is_one_line(tiny_base, name):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = ATTACKS[name] + "{{ messages[0]['content'] }}"
    with pytest.raises(UserError) as error:
        chat_template(tokenizer)
    assert "chat template" in str(error.value)


@pytest.mark.parametrize("name", ["classes", "a long loop"])
def test_a_run_whose_chat_template_attacks_is_not_exported(run, program, name):
    tokens = {"special_tokens": ["<|endoftext|>"], "end": "<|endoftext|>", "name": "chat"}
    (run / "adapter" / "prompt_template.json").write_text(json.dumps(GOOD_TEMPLATE | tokens))
    (run / "adapter" / "chat_template.jinja").write_text(ATTACKS[name])
    result = program(*COMMANDS["export"](signed(run)))
    assert (result.returncode, "the chat template fails" in result.stderr) == (2, True), result.stderr


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ([], "is damaged"),
        ({"about": {}, "systems": {"tuned": {}}}, "is damaged"),
        ({"about": [], "predictions": ""}, "is damaged"),
    ],
)
def test_a_damaged_evaluation_is_not_exported(run, program, results, words):
    (run / "eval").mkdir()
    (run / "eval" / "results.json").write_text(json.dumps(results))
    result = program(*COMMANDS["export"](run))
    assert (result.returncode, words in result.stderr) == (2, True), result.stderr


HUB_IDS = ['x"); import os; os.system("true', "x](javascript:alert(1))", "a`b", "../../x", "a/b/c"]


@pytest.mark.parametrize("name", HUB_IDS)
def test_names_in_a_run_do_not_become_code_in_its_card(run, program, name):
    edit(run / "adapter" / "adapter_config.json", base_model_name_or_path=name)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["model"]["base"] = name
    (run / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    result = program("sft.export.__main__", signed(run))
    assert (result.returncode, "error: model.base " in result.stderr) == (2, True), result.stderr


def test_programs_are_started_in_three_places_only():
    root = Path(__file__).parents[1]
    files = [*root.glob("*.py"), *(root / "sft").rglob("*.py"), *(root / "eval").rglob("*.py")]
    starts = re.compile(r"subprocess|os\.system|os\.exec|os\.spawn|popen|multiprocessing", re.IGNORECASE)
    found = {path.name for path in files if starts.search(path.read_text(encoding="utf-8"))}
    assert found == {"build_base.py", "manifest.py", "llama_cpp.py"}


def test_a_finished_run_is_one_and_its_adapter_counts(trained_run):
    assert require_finished(trained_run).status == "finished"
    assert check_adapter(trained_run / "adapter") == 2
