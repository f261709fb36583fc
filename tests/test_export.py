"""Exports: a merged model says what was trained, plain transformers loads it, nothing of this machine is in it."""

import json
import re
import shutil
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from made_up import signed
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sft.export.export import export
from sft.export.request import Request
from sft.export.source import CONTEXT, QUESTION
from sft.generation.answerer import load_answerer, open_run
from sft.model.load import load_base
from sft.model.lora import load_adapter
from sft.prompt.chat_template import user_message
from sft.prompt.template import ALPACA_JA, PromptTemplate
from sft.system.errors import UserError
from sft.system.whole_directory import whole_directory

ROOT = Path(__file__).parents[1]
PENALTY = "generation.repetition_penalty=1.2"
QUANTISED = {
    "int8": ["quantization.load_in_8bit=true"],
    "nf4": ["quantization.load_in_4bit=true", "quantization.bnb_4bit_quant_type=nf4"],
}
QUESTIONS = [("富士山の高さは?", ""), ("  高さは?\n一行で。\n", "富士山は\n\n標高3776メートルの山です。")]


def train(tiny_base: Path, run: Path, *words: str) -> Path:
    import train_sft

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        base = [f"model.base={tiny_base}", "model.build=null", f"run.directory={run}"]
        quick = ["data.train_rows=32", "training.learning_rate=1e-2", "training.eval_strategy=no", PENALTY]
        patch.setattr(sys, "argv", ["train_sft", "configs/tiny.yaml", *base, *quick, *words])
        train_sft.main()
    return run


@pytest.fixture(scope="module")
def run(tiny_base, tmp_path_factory):
    return train(tiny_base, tmp_path_factory.mktemp("秘密 place") / "tiny")


@pytest.fixture(scope="module")
def merged(run):
    export(Request(run, merge=True, shard_size="1MB"))
    return run / "export" / "merged"


@pytest.fixture(scope="module")
def adapter(run):
    export(Request(run, base_id="none"))
    return run / "export" / "adapter"


def tuned_logits(run: Path, base: Path, dtype: torch.dtype, quantization=None) -> torch.Tensor:
    model = load_adapter(load_base(str(base), torch.device("cpu"), dtype, quantization), run / "adapter").eval()
    with torch.inference_mode():
        return model(input_ids=torch.arange(2, 60)[None]).logits.float()


def exported_logits(directory: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(directory, dtype="auto").eval()
    with torch.inference_mode():
        return model(input_ids=torch.arange(2, 60)[None]).logits.float()


def test_the_merged_model_says_what_base_and_adapter_say(run, merged, tiny_base):
    expected = tuned_logits(run, tiny_base, torch.float32)
    with torch.inference_mode():
        base = load_base(str(tiny_base), torch.device("cpu"), torch.float32)(input_ids=torch.arange(2, 60)[None]).logits
    assert (expected - base).abs().mean() > 0.01
    torch.testing.assert_close(exported_logits(merged), expected, atol=1e-4, rtol=0)
    check = json.loads((merged / "export.json").read_text())["check"]
    assert (check["answers_equal"], check["rows"], check["dtype"]) == (6, 6, "float32")
    assert 0 < check["logits"]["largest"] < 1e-4
    assert check["adapter_effect"]["mean"] > 0.01


def test_sixteen_bits_are_rounded_once(run, tiny_base, tmp_path):
    export(Request(run, ["model.dtype=bfloat16"], merge=True, output=tmp_path / "merged"))
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    base = load_base(str(tiny_base), torch.device("cpu"), torch.bfloat16)
    adapter = load_file(run / "adapter" / "adapter_model.safetensors")
    name = "gpt_neox.layers.1.attention.query_key_value"
    up, down = (adapter[f"base_model.model.{name}.lora_{part}.weight"] for part in "BA")
    exact = base.get_submodule(name).weight.float() + 16 / 8 * up @ down
    assert torch.equal(merged[f"{name}.weight"], exact.to(torch.bfloat16))
    check = json.loads((tmp_path / "merged" / "export.json").read_text())["check"]
    assert check["dtype"] == "bfloat16"
    assert check["logits"]["mean"] < 0.5 * check["adapter_effect"]["mean"]


def test_the_merge_is_pefts_own_for_its_other_kinds_of_lora(tiny_base, tmp_path):
    run = train(tiny_base, tmp_path / "dora", "lora.use_dora=true", "lora.use_rslora=true")
    export(Request(run, merge=True, output=tmp_path / "merged"))
    expected = tuned_logits(run, tiny_base, torch.float32)
    torch.testing.assert_close(exported_logits(tmp_path / "merged"), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", QUANTISED)
def test_a_quantised_run_is_merged_on_the_unquantised_base(tiny_base, tmp_path, kind, capsys):
    run = train(tiny_base, tmp_path / kind, *QUANTISED[kind])
    capsys.readouterr()
    export(Request(run, merge=True, output=tmp_path / "merged"))
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert "quantization_config" not in config
    expected = tuned_logits(run, tiny_base, torch.float32)
    torch.testing.assert_close(exported_logits(tmp_path / "merged"), expected, atol=1e-4, rtol=0)
    check = json.loads((tmp_path / "merged" / "export.json").read_text())["check"]
    assert check["trained_logits"]["mean"] > 100 * check["logits"]["mean"] > 0
    assert "merged against what was trained, the quantised base + adapter" in capsys.readouterr().out


def test_small_shards_come_with_an_index(merged):
    shards = sorted(path.name for path in merged.glob("*.safetensors"))
    assert len(shards) > 2
    index = json.loads((merged / "model.safetensors.index.json").read_text())["weight_map"]
    assert sorted(set(index.values())) == shards
    assert sorted(index) == sorted(name for shard in shards for name in load_file(merged / shard))


def test_plain_transformers_and_the_cards_own_code_answer_as_the_run_does(
    merged, adapter, run, tiny_base, command, tmp_path
):
    base = shutil.copytree(tiny_base, tmp_path / "tiny")  # where the adapter's base is called as in the card
    # As bases of chat models have them: settings that are not the run's.
    theirs = {"repetition_penalty": 5.0, "do_sample": True, "temperature": 2.0, "top_k": 7}
    theirs["eos_token_id"] = [*range(2, 4096)]  # of a greedy answer the first token would be the last
    (base / "generation_config.json").write_text(json.dumps(theirs))
    messages = [[{"role": "user", "content": user_message(ALPACA_JA, *question)}] for question in QUESTIONS]
    script = (
        "import json, sys\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "name, messages, *cards = map(json.loads, sys.argv[1:])\n"
        "model, tokenizer = AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)\n"
        "inputs = [tokenizer.apply_chat_template(m, add_generation_prompt=True, return_dict=True, return_tensors='pt')"
        " for m in messages]\n"
        "answers = [model.generate(**i)[0, i['input_ids'].shape[1]:].tolist() for i in inputs]\n"
        "print(json.dumps([[i['input_ids'][0].tolist() for i in inputs], answers]))\n"
        "for card in cards: print('=====', flush=True); exec(card, {})\n"
        "assert not any(m == 'sft' or m.startswith('sft.') for m in sys.modules)\n"
    )
    codes = [card_code(directory).replace('name = "."', f'name = "{directory}"') for directory in (merged, adapter)]
    words = [json.dumps(word) for word in (str(merged), messages, *codes)]
    result = command("-c", script, *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    plain, *printed = result.stdout.split("=====\n")
    ids, answers = json.loads(plain)
    answerer = load_answerer(open_run(run))
    prompts = [answerer.prompt(*question).ids for question in QUESTIONS]
    assert ids == prompts
    with_penalty = answerer.answer(answerer.prompt(QUESTION, CONTEXT).ids).text
    assert [text.strip() for text in printed] == [with_penalty, with_penalty]
    answerer.generation = answerer.generation | {"repetition_penalty": 1.0}
    assert answerer.answer(answerer.prompt(QUESTION, CONTEXT).ids).text != with_penalty
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answerer.tokenizer.decode(answer, skip_special_tokens=True).strip() == answerer.answer(prompt).text
        assert len(answer) <= 32  # generation_config.json has the run's limit


def test_stops_are_in_the_card_and_nowhere_that_plain_generate_reads(run, tmp_path):
    stops = ["generation.stop_strings=[以上]", "generation.repetition_penalty=1"]
    export(Request(run, stops, merge=True, output=tmp_path / "merged"))
    assert "stop_strings" not in json.loads((tmp_path / "merged" / "generation_config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.generate(torch.arange(2, 9)[None]).shape[1] > 7  # which would ask for a tokenizer, had it stops
    card = (tmp_path / "merged" / "README.md").read_text(encoding="utf-8")
    wanted = ["\n### 指示:", "\n### 入力:", "\n### 応答:", "以上"]
    assert f"stops = {json.dumps(wanted, ensure_ascii=False)}\n" in card
    request = json.loads(re.search(r"```json\n(.*?)```", card, re.DOTALL)[1])
    assert (request["stop"], request["temperature"], request["max_tokens"]) == (wanted, 0, 32)


def test_the_cards_code_cuts_answers_where_the_run_does(run, tmp_path, monkeypatch, capsys):
    export(Request(run, base_id="none", output=tmp_path / "adapter"))
    code = card_code(tmp_path / "adapter").partition("output = ")[2].partition("\n")[2]
    stops = ["\n### 指示:", "\n### 入力:"]
    for text, answer in (
        ("東京です。\n### 指示:\n次は", "東京です。"),
        ("### 入力:\nx", ""),
        ("東京 ### 指示:", "東京 ### 指示:"),
    ):
        tokenizer = SimpleNamespace(decode=lambda *_, text=text, **__: text)
        capsys.readouterr()
        exec(code, {"stops": stops, "tokenizer": tokenizer, "output": torch.zeros(1, 1), "length": 0})
        assert capsys.readouterr().out == f"{answer}\n"


def card_code(directory: Path) -> str:
    card = (directory / "README.md").read_text(encoding="utf-8")
    return re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]


def test_llama_cpps_converter_would_know_every_tensor(merged):
    import gguf

    names = json.loads((merged / "model.safetensors.index.json").read_text())["weight_map"]
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPTNEOX, 2)
    assert [name for name in names if known.get_name(name, try_suffixes=(".weight", ".bias")) is None] == []
    assert json.loads((merged / "config.json").read_text())["architectures"] == ["GPTNeoXForCausalLM"]


def test_nothing_of_this_machine_or_of_the_data_is_in_an_export(merged, adapter, run, tiny_base):
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"]) == ("tiny", 8)
    assert {path.name for path in adapter.iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "export.json",
        "prompt_template.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert not (run / "adapter" / "README.md").exists()  # PEFT's, which names the base's directory
    private = (str(run.parent), str(tiny_base.parent), str(ROOT), str(Path.home()))
    for path in [*merged.iterdir(), *adapter.iterdir()]:
        assert path.stat().st_mode & 0o444 == path.parent.stat().st_mode & 0o444
        content = path.read_bytes()
        assert not [text for text in private if text.encode() in content or json.dumps(text)[1:-1].encode() in content]


def test_an_export_is_replaced_whole_or_not_at_all(run, adapter, monkeypatch, program):
    before = {path.name: path.read_bytes() for path in adapter.iterdir()}
    assert program("sft.export.__main__", run, "--base-id", "none", "--data-license", "cc-by-4.0").returncode == 0
    assert "cc-by-4.0" in (adapter / "README.md").read_text(encoding="utf-8")
    after = {path.name: path.read_bytes() for path in adapter.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"README.md"}

    def full(self, directory):
        (directory / "half.json").write_text("{")
        raise KeyboardInterrupt

    monkeypatch.setattr(PromptTemplate, "save", full)
    stopped = program("sft.export.__main__", run, "--base-id", "none")
    assert (stopped.returncode, "nothing was exported" in stopped.stderr) == (130, True)
    assert {path.name: path.read_bytes() for path in adapter.iterdir()} == after
    assert [path.name for path in adapter.parent.iterdir() if path.name.startswith(".")] == []


def test_what_a_killed_export_left_is_cleared_and_two_at_once_are_refused(tmp_path, command):
    target = tmp_path / "merged"
    killed = (
        "import os, sys\nfrom pathlib import Path\nfrom sft.system.whole_directory import whole_directory\n"
        "with whole_directory(Path(sys.argv[1])) as d: (d / 'half').write_text('x'); os._exit(9)"
    )
    assert command("-c", killed, target).returncode == 9
    assert not target.exists()
    with whole_directory(target) as directory:
        assert list(directory.iterdir()) == []
        with pytest.raises(UserError, match="is being written by another process"), whole_directory(target):
            pass
        (directory / "whole").write_text("x")
    assert [path.name for path in tmp_path.rglob("*")] == ["merged", "whole"]


def test_a_failing_rename_puts_the_old_export_back(tmp_path, monkeypatch):
    target = tmp_path / "merged"
    target.mkdir()
    (target / "old").write_text("x")
    rename = Path.rename

    def fail(self, to):
        if self.name.endswith(".unfinished"):
            raise OSError("no")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(UserError, match="merged: cannot be written: no; choose"), whole_directory(target):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["merged", "old"]


def test_a_full_disk_is_told_before_any_weights_are_read(run, tmp_path, program, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9, 10**6))
    monkeypatch.setattr("sft.model.load.load_base", None)
    for words in ([], ["--merge"]):
        result = program("sft.export.__main__", run, "--base-id", "none", *words, "--output", tmp_path / "out")
        assert result.returncode == 2
        assert "0.2 GB are needed and 0.0 GB free" in result.stderr
        assert list(tmp_path.iterdir()) == []


@pytest.fixture
def changed(run, tmp_path):
    """A copy of the run, and a function that writes its adapter's weights changed."""
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "export"))

    def change(how):
        path = copy / "adapter" / "adapter_model.safetensors"
        save_file({name: how(name, tensor) for name, tensor in load_file(path).items()}, path, {"format": "pt"})
        signed(copy)

    return copy, change


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "tokenizer.json"])
def test_what_the_training_did_not_write_is_not_exported(run, program, tmp_path, name):
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "export"))
    path = copy / "adapter" / name
    path.write_bytes(path.read_bytes() + b" ")
    refused = program("sft.export.__main__", copy)
    assert refused.returncode == 2
    assert "error: " in refused.stderr
    assert not list(copy.glob("export/*"))


def test_a_damaged_adapter_is_refused_in_both_forms(changed, program):
    run, change = changed
    change(lambda name, tensor: tensor * 1e30)  # each is finite, their product is not
    result = program("sft.export.__main__", run, "--merge")
    assert (result.returncode, "not a finite number" in result.stderr or "not finite numbers" in result.stderr) == (
        2,
        True,
    )
    change(lambda name, tensor: tensor.index_fill(0, torch.tensor([3]), torch.nan) if "lora_B" in name else tensor)
    for words in ([], ["--merge"]):
        result = program("sft.export.__main__", run, *words)
        assert (result.returncode, "not finite numbers" in result.stderr) == (2, True), result.stderr
        assert list((run / "export").iterdir()) == []
    (run / "adapter" / "adapter_model.safetensors").write_bytes(b"half a file")
    assert "cannot be read as safetensors" in program("sft.export.__main__", signed(run)).stderr


@pytest.mark.parametrize("scale", [1e-5, 3e-2])
def test_an_adapter_that_sixteen_bits_cannot_hold_is_not_merged(changed, program, scale):
    run, change = changed
    change(lambda name, tensor: tensor * scale)
    result = program("sft.export.__main__", run, "--merge", "model.dtype=bfloat16")
    assert (result.returncode, "its effect would be lost" in result.stderr) == (2, True), result.stderr
    assert list((run / "export").iterdir()) == []


def test_a_base_whose_own_files_are_quantised_is_refused(run, tiny_base, tmp_path, program):
    base = shutil.copytree(tiny_base, tmp_path / "tiny")
    config = json.loads((base / "config.json").read_text())
    quantised = config | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    (base / "config.json").write_text(json.dumps(quantised))
    result = program("sft.export.__main__", run, "--merge", f"model.base={base}", "--output", tmp_path / "out")
    assert (result.returncode, "its own files are quantised" in result.stderr) == (2, True), result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["training.seed=1"], "the training settled it"),
        (["--merge", "--shard-size", "viel"], "is not a size such as 2GB"),
        (["--merge", "data.path=data/absent.jsonl"], "no such data file"),
        (["generation.top_p=7"], "generation.top_p"),
        (["--output", "README.md", "--base-id", "none"], "is there and not an export"),
        (["--output", "sft", "--base-id", "none"], "is there and not an export"),
        (["--push", "a/b/c"], "--push a/b/c: Repo id"),
        (["--push", "model"], "name the owner, too"),
        (["--base-id", "../tiny"], "--base-id ../tiny"),
        (["--private"], "--private goes with --push"),
        ([], "--base-id OWNER/NAME gives its hub id, --base-id none says that it is on no hub"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_2(run, program, words, message):
    result = program("sft.export.__main__", run, *words)
    assert result.returncode == 2, result.stderr
    assert len([line for line in result.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert message in result.stderr
    assert (ROOT / "README.md").is_file()


def test_a_run_that_is_none_or_not_finished_is_refused(changed, tmp_path, program):
    run, _ = changed
    assert "not a run directory" in program("sft.export.__main__", tmp_path).stderr
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
    assert "has not finished" in program("sft.export.__main__", run).stderr


def test_a_run_that_trained_all_weights_has_no_adapter_to_export(changed, program):
    run, _ = changed
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(r"(?m)^lora:\n(  .*\n)+", "lora: null\n", text))
    assert "all weights were trained" in program("sft.export.__main__", run).stderr


def test_help_is_instant(command):
    result = command("-X", "importtime", "-m", "sft.export", "--help")
    assert result.returncode == 0
    assert not {"torch", "huggingface_hub"} & {line.split("|")[-1].strip() for line in result.stderr.splitlines()}


def test_whoever_may_read_the_directory_may_read_every_file_in_it(tmp_path):
    with whole_directory(tmp_path / "export") as aside:
        (aside / "deep").mkdir()
        for path in (aside / "weights", aside / "deep" / "weights"):
            path.touch(mode=0o600)
    readable = (tmp_path / "export").stat().st_mode & 0o444
    for path in (tmp_path / "export").rglob("*"):
        assert path.stat().st_mode & 0o444 == readable
