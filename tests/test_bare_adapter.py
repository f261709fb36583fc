"""Adapters that stock PEFT and TRL saved: answered with, scored and exported, with what nobody recorded said."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from sft.export.export import check_rows
from sft.export.request import Request
from sft.export.source import CONTEXT, QUESTION, read_source
from sft.generation.answerer import load_answerer, open_run
from sft.model.adapter import read_config
from sft.prompt.chat_template import user_message
from sft.prompt.template import ALPACA_JA
from sft.run.bare_adapter import is_bare_adapter
from sft.system.errors import UserError

ROOT = Path(__file__).parents[1]
SHORT = "generation.max_new_tokens=4"
TURNS = (
    "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture(scope="module")
def of_trl(tiny_base, tmp_path_factory) -> Path:
    """What TRL's own trainer saves after two steps: adapter, tokenizer, its training arguments and PEFT's card."""
    directory = tmp_path_factory.mktemp("trl") / "adapter"
    rows = [json.loads(line) for line in (ROOT / "data" / "sample.jsonl").open(encoding="utf-8")][:8]
    texts = [{"text": ALPACA_JA.render(row["instruction"], row["input"]) + row["output"]} for row in rows]
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(tiny_base),
        args=SFTConfig(
            str(directory), max_steps=2, per_device_train_batch_size=4, learning_rate=0.05, report_to="none",
            use_cpu=True, bf16=False, max_length=64, save_strategy="no", disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(texts),
        peft_config=LoraConfig(task_type="CAUSAL_LM", target_modules=["query_key_value"], lora_dropout=0.05),
    )  # fmt: skip
    trainer.train()
    trainer.save_model()
    return directory


@pytest.fixture(scope="module")
def of_alpaca_lora(tiny_base, tmp_path_factory) -> Path:
    """Two files, the configuration with the keys of PEFT in spring 2023, and no word of the task."""
    directory = tmp_path_factory.mktemp("alpaca") / "lora"
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    torch.manual_seed(1)
    model = get_peft_model(model, LoraConfig(target_modules=["query_key_value"], init_lora_weights=False))
    model.save_pretrained(directory)
    (directory / "README.md").unlink()
    kept = ("base_model_name_or_path", "bias", "fan_in_fan_out", "lora_alpha", "lora_dropout", "modules_to_save")
    saved = json.loads((directory / "adapter_config.json").read_text())
    old = {"enable_lora": None, "merge_weights": False, "inference_mode": True, "peft_type": "LORA", "r": 8}
    settings = {key: saved[key] for key in kept} | old | {"target_modules": ["query_key_value"]}
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    return directory


def said_by(base: Path) -> list[str]:
    return [f"model.base={base}", "prompt.template=alpaca-ja", "model.dtype=float32"]


def reference_answer(base: Path, adapter: Path, prompt: str, new_tokens: int) -> str:
    """What plain transformers and PEFT answer."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
    inputs = tokenizer(prompt, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
    return tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


@pytest.mark.parametrize("made_by", ["of_trl", "of_alpaca_lora"])
def test_it_answers_as_plain_peft_does(made_by, tiny_base, request):
    adapter = request.getfixturevalue(made_by)
    answerer = load_answerer(open_run(adapter, [*said_by(tiny_base), SHORT]))
    answer = answerer.answer(answerer.prompt(QUESTION, CONTEXT).ids).text
    assert answer == reference_answer(tiny_base, adapter, ALPACA_JA.render(QUESTION, CONTEXT), 4)
    with answerer.as_system("base"):
        assert answerer.answer(answerer.prompt(QUESTION, CONTEXT).ids).text != answer


def test_what_it_does_not_say_is_asked_for_in_one_line(of_trl, tiny_base, program):
    line = f"error: {of_trl}: is an adapter without its run; say model.base=… (trained on {tiny_base}) and "
    names = "alpaca-en, alpaca-ja, alpaca-ja-context-first, chat, chat-context-first"
    template = f"prompt.template=… ({names}, or both texts of another)\n"
    commands = [
        ["infer", of_trl, "--instruction", "首都は?"],
        ["eval.__main__", of_trl],
        ["sft.export.__main__", of_trl],
    ]
    for words in (*commands, ["eval.__main__", "sweep", of_trl]):
        result = program(*words)
        assert (result.returncode, result.stderr) == (2, line + template)
        result = program(*words, f"model.base={tiny_base}")
        assert (result.returncode, result.stderr.endswith(f"say {template}")) == (2, True)
    lora = program(*commands[0], *said_by(tiny_base), "lora=null")
    assert (lora.returncode, "this is an adapter" in lora.stderr) == (2, True)


def test_it_is_asked_scored_and_swept_on_rows_that_are_named(of_trl, tiny_base, program, tmp_path):
    adapter = shutil.copytree(of_trl, tmp_path / "adapter")
    said = [*said_by(tiny_base), SHORT]
    asked = program("infer", adapter, *said, "--instruction", QUESTION, "--input", CONTEXT)
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.strip() == reference_answer(tiny_base, adapter, ALPACA_JA.render(QUESTION, CONTEXT), 4)
    questions = tmp_path / "questions.csv"
    questions.write_text("質問\n首都は?\n", encoding="utf-8")
    columns = "data.columns={instruction: 質問, output: null}"
    result = program("infer", adapter, *said, columns, "--questions", questions, "--output", tmp_path / "answers.csv")
    assert result.returncode == 0, result.stderr
    assert "首都は?" in (tmp_path / "answers.csv").read_text(encoding="utf-8")
    for command in (["eval.__main__"], ["eval.__main__", "sweep"]):
        refused = program(*command, adapter, *said)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert "name rows: eval.data=FILE" in refused.stderr
    rows = ["eval.data=data/sample.jsonl", "eval.rows_per_category=1", "eval.resamples=10"]
    scored = program("eval.__main__", adapter, *said, *rows)
    assert scored.returncode == 0, scored.stderr
    results = json.loads((adapter / "eval" / "sample" / "results.json").read_text())
    assert set(results["systems"]) == {"base", "tuned"}
    assert results["about"]["run"] == results["about"]["learned"]
    swept = program("eval.__main__", "sweep", adapter, *said, *rows[:2], "generation.repetition_penalty=[1,1.5]")
    assert swept.returncode == 0, swept.stderr
    assert (adapter / "eval" / "sweep" / "sweep.json").is_file()


def test_another_adapter_in_its_place_is_another(of_trl, of_alpaca_lora, tiny_base, tmp_path):
    hashes = set()
    for name, source in (("a", of_trl), ("b", of_trl), ("c", of_alpaca_lora)):
        copy = shutil.copytree(source, tmp_path / name)
        hashes.add(open_run(copy, said_by(tiny_base)).trained.learned_sha256)
    assert len(hashes) == 2


def test_its_own_chat_template_is_the_prompt(of_trl, tiny_base, tmp_path):
    adapter = shutil.copytree(of_trl, tmp_path / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = TURNS
    tokenizer.save_pretrained(adapter)
    opened = open_run(adapter, [f"model.base={tiny_base}", "prompt.template=chat", SHORT])
    prompt = load_answerer(opened).prompt("首都は?").text
    assert prompt == f"[user]首都は?{tokenizer.eos_token}[assistant]"
    with pytest.raises(UserError, match="has no chat template"):
        open_run(of_trl, [f"model.base={tiny_base}", "prompt.template=chat"])


def test_an_exported_adapter_brings_its_template_along(trained_run, tiny_base, program, tmp_path):
    said = [f"model.base={tiny_base}", "model.dtype=float32"]
    assert (
        program("sft.export.__main__", trained_run, "--base-id", "none", "--output", tmp_path / "out").returncode == 0
    )
    assert is_bare_adapter(tmp_path / "out")
    opened = open_run(tmp_path / "out", [*said, SHORT])
    assert opened.template == ALPACA_JA
    ours = load_answerer(open_run(trained_run, ["model.dtype=float32", SHORT]))
    prompt = ours.prompt(QUESTION, CONTEXT).ids
    assert load_answerer(opened).answer(prompt) == ours.answer(prompt)
    with pytest.raises(UserError, match="--allow-other-template"):
        open_run(tmp_path / "out", [*said, "prompt.template=alpaca-en"])
    refused = program("sft.export.__main__", tmp_path / "out", *said, "prompt.template=alpaca-en")
    assert (refused.returncode, "the training settled it" in refused.stderr) == (2, True)


def test_it_is_exported_with_a_card_that_claims_nothing_of_its_training(of_alpaca_lora, tiny_base, program, tmp_path):
    said = said_by(tiny_base)
    words = ["--base-id", "someone/tiny", "--output", tmp_path / "adapter"]
    result = program("sft.export.__main__", of_alpaca_lora, *said, *words)
    assert result.returncode == 0, result.stderr
    assert "nothing says which data it was trained on" in result.stderr
    exported = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (exported["base_model_name_or_path"], exported["r"], exported["lora_alpha"]) == ("someone/tiny", 8, 8)
    assert (exported["task_type"], "merge_weights" in exported) == ("CAUSAL_LM", False)
    card = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "Not recorded. The adapter says of itself: r 8, lora_alpha 8" in card
    for claim in ("Japanese", "training rows", "- ja", "learning_rate", str(tiny_base)):
        assert claim not in card
    merged = program("sft.export.__main__", of_alpaca_lora, *said, "--merge", "--output", tmp_path / "merged")
    assert merged.returncode == 0, merged.stderr
    assert "2 of 2 greedy answers are equal" in merged.stdout
    ids = torch.arange(2, 40)[None]
    plain = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    with torch.inference_mode():
        expected = PeftModel.from_pretrained(plain, of_alpaca_lora).eval()(input_ids=ids).logits
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(input_ids=ids).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_what_an_export_is_made_of_is_not_replaced_by_it(trained_run, tiny_base, program, tmp_path):
    ours = tmp_path / "ours"
    assert program("sft.export.__main__", trained_run, "--base-id", "none", "--output", ours).returncode == 0
    before = {path.name: path.read_bytes() for path in ours.iterdir()}
    result = program("sft.export.__main__", ours, f"model.base={tiny_base}", "--merge", "--output", ours)
    assert (result.returncode, f"{ours}: would be replaced by an export that is made of" in result.stderr) == (2, True)
    assert {path.name: path.read_bytes() for path in ours.iterdir()} == before
    result = program("sft.export.__main__", ours, f"model.base={tiny_base}", "data.path=x")
    assert (result.returncode, "export can change model.…, generation.…\n" in result.stderr) == (2, True)


def test_llama_cpp_would_be_asked_the_cards_question(of_trl, tiny_base):
    rows = check_rows(read_source(Request(of_trl, said_by(tiny_base), merge=True)))
    asked = [user_message(ALPACA_JA, QUESTION, context) for context in (CONTEXT, "")]
    assert [[message["content"] for message in row.messages] for row in rows] == [[text] for text in asked]


def test_what_peft_notes_of_a_base_where_nobody_named_a_task_is_read_over(of_alpaca_lora, tmp_path):
    adapter = shutil.copytree(of_alpaca_lora, tmp_path / "adapter")
    saved = json.loads((adapter / "adapter_config.json").read_text())
    for name, fits in (("GPTNeoXForCausalLM", True), ("GPTNeoXForTokenClassification", False)):
        mapping = {"base_model_class": name, "parent_library": "transformers.models.gpt_neox.modeling_gpt_neox"}
        (adapter / "adapter_config.json").write_text(json.dumps(saved | {"auto_mapping": mapping}))
        if fits:
            assert read_config(adapter).r == 8
        else:
            with pytest.raises(UserError, match="auto_mapping: is set"):
                read_config(adapter)


def test_a_pickle_comes_with_the_command_that_converts_it(of_alpaca_lora, tiny_base, tmp_path):
    adapter = shutil.copytree(of_alpaca_lora, tmp_path / "an adapter's")
    weights = load_file(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(weights, adapter / "adapter_model.bin")
    with pytest.raises(UserError, match=r"is a pickle.*convert") as error:
        open_run(adapter, said_by(tiny_base))
    command = (
        str(error.value).partition("read as numbers only: ")[2].replace("python", str(ROOT / ".venv/bin/python"), 1)
    )
    subprocess.run(command, shell=True, check=True)
    assert open_run(adapter, said_by(tiny_base)).trained.learned_sha256
    again = load_file(adapter / "adapter_model.safetensors")
    assert all(torch.equal(again[name], weights[name]) for name in weights.keys() | again.keys())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type: "),
        ({"new_key": "custom.module"}, "new_key: is not a key of this PEFT's LoRA, and is set"),
        ({"modules_to_save": ["embed_out"]}, "modules_to_save: is set"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights: 'pissa_niter_4' changed the base's weights"),
        ({"target_modules": "(" * 9}, "is not a regular expression"),
    ],
)
def test_what_is_no_plain_lora_stays_refused(of_trl, tiny_base, program, tmp_path, changes, words):
    adapter = shutil.copytree(of_trl, tmp_path / "adapter")
    saved = json.loads((adapter / "adapter_config.json").read_text())
    unknown_and_off = {"of_another_version": None, "another": False, "and_another": {}}
    (adapter / "adapter_config.json").write_text(json.dumps(saved | unknown_and_off | changes))
    result = program("infer", adapter, *said_by(tiny_base), "--instruction", "首都は?")
    assert (result.returncode, words in result.stderr) == (2, True), result.stderr


def test_a_base_of_another_name_is_pointed_out(of_trl, tiny_base, tmp_path, capsys):
    base = shutil.copytree(tiny_base, tmp_path / "other")
    open_run(of_trl, said_by(base))
    assert f"says that it was trained on {tiny_base}, and not on {base}" in capsys.readouterr().err
