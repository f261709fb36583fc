"""llama.cpp, which the user has: where its programs are, and how its converter, quantiser and server are run."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sft.system.errors import UserError

VARIABLE = "LLAMA_CPP"
CONVERTER = "convert_hf_to_gguf.py"
SECONDS_TO_LOAD = 600
CONVERT = """
import json, pathlib, sys
sys.path.insert(0, sys.argv.pop(1))
pre_tokenizer = sys.argv.pop(1)
import convert_hf_to_gguf
Model = convert_hf_to_gguf.ModelBase
# As the file is: transformers 5 leaves out of GPT-NeoX's what the converter asks for (rotary_pct).
def config(directory, is_mistral_format):
    return json.loads((pathlib.Path(directory) / "config.json").read_text("utf-8"))
Model.load_hparams = staticmethod(config)
if pre_tokenizer:  # The converter knows a tokenizer by a hash of what it makes of a text, so none of its kin.
    text = next(model for model in Model.__subclasses__() if "get_vocab_base_pre" in vars(model))
    text.get_vocab_base_pre = lambda self, tokenizer: pre_tokenizer
convert_hf_to_gguf.main()
"""
"""Runs llama.cpp's converter as it is, but for two answers that it is given."""


class LlamaCpp(NamedTuple):
    """A checkout of llama.cpp, and the programs built from it."""

    directory: Path
    quantiser: str | None
    server: str | None
    """None: not built, and not on the PATH."""

    def architectures(self) -> set[str]:
        """The names of architectures that the converter knows. Raises UserError when it does not run."""
        return set(re.findall(r"- (\w+)$", self._convert("", "--print-supported-models"), re.MULTILINE))

    def convert(self, model: Path, kind: str, pre_tokenizer: str, name: str, target: Path) -> None:
        """Write the model in directory `model` to the file `target`, in format `kind` of the converter.

        `pre_tokenizer`: how llama.cpp calls what divides texts before byte-level BPE does; "": there is no such thing.
        """
        self._convert(pre_tokenizer, model, "--outtype", kind, "--outfile", target, "--model-name", name)

    def _convert(self, pre_tokenizer: str, *words: object) -> str:
        return _run(sys.executable, "-c", CONVERT, self.directory, pre_tokenizer, *words)

    def quantise(self, source: Path, kind: str, target: Path) -> None:
        """Write the GGUF file `source` in format `kind` to `target`."""
        assert self.quantiser  # see `find_llama_cpp`
        _run(self.quantiser, source, target, kind)

    @contextlib.contextmanager
    def serving(self, weights: Path, context_length: int) -> Iterator[Callable[[str, dict[str, Any] | None], Any]]:
        """llama.cpp's server over a GGUF file, on this machine alone; a function that posts to it, or gets for None."""
        assert self.server
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [self.server, "--model", weights, "--port", port, "--ctx-size", context_length, "--parallel", 1]

        def ask(path: str, body: dict[str, Any] | None) -> Any:
            data = None if body is None else json.dumps(body).encode()
            headers = {"Content-Type": "application/json"}
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
            with opener.open(request) as answer:
                return json.load(answer)

        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with tempfile.TemporaryFile() as log, _ended_by_sigterm():
            process = subprocess.Popen([*map(str, words)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                _wait_for(process, lambda: ask("/health", None), log)
                yield ask
            finally:
                process.terminate()
                process.wait()


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end this program as an exit does, and not at once: what it started is ended, too."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def find_llama_cpp(directory: Path | None, kind: str) -> LlamaCpp:
    """llama.cpp in `directory`, or where the environment says. Raises UserError without what format `kind` needs."""
    place = directory or Path(os.environ.get(VARIABLE) or "")
    if not (directory or os.environ.get(VARIABLE)):
        raise UserError(f"--gguf needs a checkout of llama.cpp: say where with --llama-cpp DIR or {VARIABLE}")
    if not (place / CONVERTER).is_file():
        raise UserError(f"{place}: holds no {CONVERTER}; --llama-cpp is the directory of llama.cpp's source")
    found = LlamaCpp(place.absolute(), _program(place, "llama-quantize"), _program(place, "llama-server"))
    if kind == "q4_k_m" and not found.quantiser:
        raise UserError(
            f"--gguf {kind} needs llama-quantize, and it is neither in {place / 'build' / 'bin'} nor on the PATH: "
            "cmake -B build && cmake --build build --target llama-quantize llama-server"
        )
    return found


def _program(directory: Path, name: str) -> str | None:
    return shutil.which(name, path=str((directory / "build" / "bin").absolute())) or shutil.which(name)


def _run(program: object, *words: object) -> str:
    environment = os.environ | {"PYTHONSAFEPATH": "1", "HF_HUB_OFFLINE": "1"}
    command = [str(word) for word in (program, *words)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    if result.returncode:
        raise UserError(f"llama.cpp: {_last_line(result.stderr or result.stdout)}")
    return result.stdout + result.stderr


def _wait_for(process: subprocess.Popen, ask: Callable[[], object], log: Any) -> None:
    end = time.monotonic() + SECONDS_TO_LOAD
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError):  # refused, or 503 while it loads
            ask()
            return
        time.sleep(0.1)
    log.seek(0)
    raise UserError(f"llama-server did not start: {_last_line(log.read().decode(errors='replace'))}")


def _last_line(text: str) -> str:
    return ([line.strip() for line in text.splitlines() if line.strip()] or ["it failed without a word"])[-1][:300]
