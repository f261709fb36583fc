"""Exports as transformers 4.57 and 5 read them alike, and chat templates as other renderers of Jinja do.

What needs packages of others is slow, and `make test-exports` runs it: every family's export in transformers 4.57, and
the templates in @huggingface/jinja, in node-llama-cpp and in llama.cpp's own renderer.
"""

import json
import re
from pathlib import Path

import pytest
import torch
from chat_corpus import CONVERSATIONS, EN, JA, expected
from other_programs import node_with, output, python_with
from small_models import BUILDERS
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoTokenizer, Gemma3TextConfig, GPTNeoXConfig, LlamaConfig

from sft.export.compatible import add_old_keys, save_tokenizer, say_where_answers_begin, with_old_keys
from sft.export.export import export
from sft.export.request import Request
from sft.export.source import CONTEXT, QUESTION
from sft.generation.answerer import load_answerer, open_run
from sft.model.load import load_base, load_tokenizer
from sft.model.lora import load_adapter
from sft.prompt.chat_template import as_chat_template, user_message
from sft.prompt.template import ALPACA_EN, ALPACA_JA

ROOT = Path(__file__).parents[1]
TRANSFORMERS_5 = "transformers==5.23.0"
TRANSFORMERS_4 = ("transformers==4.57.6", "huggingface_hub==0.36.2", "tokenizers==0.22.2")
NODE = ("@huggingface/jinja@0.5.11", "node-llama-cpp@3.22.1", "@node-llama-cpp/linux-x64@3.22.1")
LINEAR = {"rope_type": "linear", "factor": 4.0}
LLAMA_3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}  # fmt: skip
SCALED = {"rope_theta": 1e6, **LINEAR}
SLIDING = {"rope_type": "default", "rope_theta": 1e4}
OF_THIS_MACHINE = {"is_local", "local_files_only", "name_or_path", "vocab_file", "tokenizer_file", "auto_map"}


@pytest.mark.parametrize(
    ("config", "old"),
    [
        (GPTNeoXConfig(rope_parameters={"rope_theta": 1e4, "partial_rotary_factor": 1.0}),
         {"rotary_pct": 1.0, "rotary_emb_base": 1e4}),
        (GPTNeoXConfig(rope_parameters={"rope_theta": 2e4, "partial_rotary_factor": 0.5, **LINEAR}),
         {"rotary_pct": 0.5, "rotary_emb_base": 2e4, "rope_scaling": LINEAR}),
        (LlamaConfig(rope_parameters={"rope_theta": 5e5, **LLAMA_3}), {"rope_theta": 5e5, "rope_scaling": LLAMA_3}),
        (LlamaConfig(rope_parameters={"rope_theta": 1e6}), {"rope_theta": 1e6}),
        (Gemma3TextConfig(rope_parameters={"full_attention": SCALED, "sliding_attention": SLIDING}),
         {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": LINEAR}),
    ],
    ids=["gpt-neox", "gpt-neox scaled", "llama 3.1", "llama", "gemma 3 scaled"],
)  # fmt: skip
def test_the_old_keys_say_what_the_new_ones_say(config, old, tmp_path):
    config.dtype = torch.bfloat16
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert with_old_keys(written) == written | old | {"torch_dtype": "bfloat16"}
    add_old_keys(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert (again.rope_parameters, again.dtype) == (config.rope_parameters, torch.bfloat16)


@pytest.mark.parametrize("family", BUILDERS)
def test_a_tokenizer_is_saved_without_what_only_this_version_and_machine_know(family, small_base, tmp_path):
    section = small_base(family)
    tokenizer = load_tokenizer(section.get("tokenizer", section["base"]))
    save_tokenizer(tokenizer, tmp_path)
    written = (tmp_path / "tokenizer_config.json").read_text(encoding="utf-8")
    settings = json.loads(written)
    assert not OF_THIS_MACHINE & settings.keys()
    assert str(Path(section["base"]).parent) not in written
    assert settings["tokenizer_class"] == (
        "GPTNeoXJapaneseTokenizer" if family == "abeja" else "PreTrainedTokenizerFast"
    )
    assert not isinstance(settings.get("extra_special_tokens"), list)
    again = AutoTokenizer.from_pretrained(tmp_path)
    named = ("bos_token", "eos_token", "pad_token", "unk_token", "all_special_ids")
    assert [getattr(again, name) for name in named] == [getattr(tokenizer, name) for name in named]
    for line in (ROOT / "data" / "sample.jsonl").open(encoding="utf-8"):
        text = json.loads(line)["output"]
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]


@pytest.mark.parametrize(("model_type", "said"), [("qwen3", True), ("qwen2", True), ("gpt_neox", False)])
def test_a_server_that_knows_the_bases_chat_finds_the_answer_behind_our_prompt(model_type, said, tiny_base, tmp_path):
    save_tokenizer(load_tokenizer(str(tiny_base)), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    say_where_answers_begin(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert (getattr(tokenizer, "response_template", None) is not None) == said
    if said:
        prompt = ALPACA_JA.render("何時ですか。", "")
        for answer, content in (("<think>\n9時です。", "<think>\n9時です。"), ("9時。</s>", "9時。"), ("", "")):
            eos = answer.replace("</s>", tokenizer.eos_token)
            assert tokenizer.parse_response(eos, prefix=prompt)["content"] == content


@pytest.mark.parametrize("space", [False, True])
def test_a_byte_level_tokenizers_space_in_front_is_said(tiny_base, tmp_path, space):
    tokenizer = load_tokenizer(str(tiny_base))
    tokenizer.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=space)
    save_tokenizer(tokenizer, tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["add_prefix_space"] is space


READ = """
import json, sys, torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
assert transformers.__version__ == "4.57.6"
directory, messages = json.loads(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(directory).eval()
assert model.dtype == torch.float32
tokenizer = AutoTokenizer.from_pretrained(directory)
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
answer = model.generate(**inputs)[0, inputs["input_ids"].shape[1]:]
with torch.inference_mode():
    torch.save(model(**inputs).logits, directory + ".pt")
text = tokenizer.decode(answer, skip_special_tokens=True)
print(json.dumps([inputs["input_ids"][0].tolist(), text, tokenizer(messages[0]["content"])["input_ids"]]))
"""


@pytest.fixture(scope="module")
def transformers_4(tmp_path_factory):
    return python_with(tmp_path_factory.mktemp("python") / "transformers-4", *TRANSFORMERS_4)


@pytest.mark.slow
@pytest.mark.parametrize("family", BUILDERS)
def test_transformers_4_says_what_the_run_says(family, small_base, transformers_4, program, tmp_path):
    section, run = small_base(family), tmp_path / "run"
    words = ["model.build=null", f"run.directory={run}", "data.train_rows=24", "training.learning_rate=0.01"]
    words += ["training.eval_strategy=no", "lora.target_modules=null", "generation.max_new_tokens=16"]
    words += [f"model.{key}={value}" for key, value in section.items()]
    result = program("train_sft", "configs/tiny.yaml", *words)
    assert result.returncode == 0, result.stderr
    export(Request(run, merge=True))
    merged = run / "export" / "merged"
    question = ("どこが首都ですか。", "日本の首都は東京です。😀鱻")
    messages = [{"role": "user", "content": user_message(ALPACA_JA, *question)}]
    printed = output(transformers_4, "-c", READ, json.dumps([str(merged), messages])).splitlines()[-1]
    ids, answer, plain = json.loads(printed)
    answerer = load_answerer(open_run(run))
    assert ids == answerer.prompt(*question).ids
    assert plain == answerer.tokenizer(messages[0]["content"])["input_ids"]
    model = load_adapter(load_base(section["base"], torch.device("cpu"), torch.float32), run / "adapter").eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits
    torch.testing.assert_close(torch.load(f"{merged}.pt"), logits, atol=1e-4, rtol=0)
    answerer.generation = answerer.generation | {"repetition_penalty": 1.0}
    assert answer.strip() == answerer.answer(ids).text


@pytest.fixture(scope="module")
def newest_transformers(tmp_path_factory):
    return python_with(tmp_path_factory.mktemp("python") / "transformers-5", TRANSFORMERS_5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("python", "kind"),
    # The adapter's base was saved by version 5, whose config.json version 4 misreads.
    [("transformers_4", "merged"), ("newest_transformers", "merged"), ("newest_transformers", "adapter")],
)
def test_the_cards_code_answers_as_the_run_does_where_the_project_is_not(
    python, kind, trained_run, tiny_base, tmp_path, request
):
    export(Request(trained_run, merge=kind == "merged", base_id="none", output=tmp_path / "export"))
    card = (tmp_path / "export" / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    code = code.replace('"."', json.dumps(str(tmp_path / "export"))).replace('"tiny"', json.dumps(str(tiny_base)))
    code += "import sys\nassert not [name for name in sys.modules if name.split('.')[0] == 'sft']\n"
    answerer = load_answerer(open_run(trained_run))
    expected = answerer.answer(answerer.prompt(QUESTION, CONTEXT).ids).text
    assert output(request.getfixturevalue(python), "-c", code, cwd=tmp_path).strip() == expected


RENDER = """
import fs from "fs";
import {Template} from "@huggingface/jinja";
import {getLlama, JinjaTemplateChatWrapper} from "node-llama-cpp";
const {templates, conversations} = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const history = [{type: "system", text: "親切に。"}, {type: "user", text: "首都は?"},
                 {type: "model", response: ["東京"]}, {type: "user", text: "<s>とは?"},
                 {type: "model", response: [""]}];
const found = templates.map((template) => {
    const hf = new Template(template), llamaCpp = new llama._bindings.AddonJinjaRenderer(template);
    const wrapper = new JinjaTemplateChatWrapper({template});  // which throws where its own test of templates fails
    const state = wrapper.generateContextState({chatHistory: history}).contextText.toJSON();
    const all = conversations.map((messages) => {
        const values = {messages, bos_token: "<s>", eos_token: "</s>", add_generation_prompt: true};
        return [hf.render(values), llamaCpp.render(values)];
    });
    return {all, state, system: wrapper.settings.supportsSystemMessages};
});
fs.writeFileSync(process.argv[3], JSON.stringify(found));
process.exit(0);
"""


@pytest.mark.slow
def test_other_renderers_of_jinja_give_the_same_prompts(tmp_path):
    node_with(tmp_path, *NODE)
    (tmp_path / "render.js").write_text(RENDER, encoding="utf-8")
    cases = [(ALPACA_JA, JA, ""), (ALPACA_EN, EN, " ")]
    templates = [as_chat_template(template, True, space) for template, _, space in cases]
    given = {"templates": templates, "conversations": list(CONVERSATIONS.values())}
    (tmp_path / "given.json").write_text(json.dumps(given), encoding="utf-8")
    output("node", tmp_path / "render.js", tmp_path / "given.json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    for (template, separator, space), rendered in zip(cases, found, strict=True):
        for (name, messages), texts in zip(CONVERSATIONS.items(), rendered["all"], strict=True):
            assert texts == [f"<s>{space}{expected(template, messages, separator)}"] * 2, name
        assert rendered["system"] is True
        pieces = [piece if isinstance(piece, str) else piece["value"] for piece in rendered["state"]]
        talk = [{"role": "system", "content": "親切に。"}, {"role": "user", "content": "首都は?"}]
        talk += [{"role": "assistant", "content": "東京"}, {"role": "user", "content": "<s>とは?"}]
        assert "".join(pieces) == f"BOS{space}{expected(template, talk, separator)}"
        assert "<s>とは?" in rendered["state"]  # as a text of its own, in which nothing is a special token
