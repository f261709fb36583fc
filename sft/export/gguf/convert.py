"""A merged export as a GGUF file: what of it llama.cpp can read, and what its converter is given."""

import json
import tempfile
from pathlib import Path
from typing import Any, Literal

from sentencepiece import sentencepiece_model_pb2
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft.export.gguf.llama_cpp import LlamaCpp
from sft.prompt.encode import bos_ids, is_all_data
from sft.system.errors import UserError
from sft.system.files import read_json, write_whole

Kind = Literal["f32", "f16", "q8_0", "q4_k_m"]
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS = {
    (None, False): "gpt-2",
    (WORDS.format(digits=r"\p{N}"), False): "qwen2",
    (WORDS.format(digits=r"\p{N}{1,3}"), True): "llama-bpe",
}
"""How a byte-level BPE divides texts (None: as GPT-2 does) and whether it ignores merges → llama.cpp's name of that."""
SPACE = "▁"


BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 1.1, "q4_k_m": 0.7}
"""Of each weight in a file, at most."""


def check_convertible(llama_cpp: LlamaCpp, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UserError for an architecture or a tokenizer that llama.cpp cannot read. `model` needs no weights."""
    architecture = type(model).__name__
    if architecture not in llama_cpp.architectures():
        raise UserError(f"--gguf: llama.cpp's converter does not know the architecture {architecture}")
    rope = getattr(model.config, "rope_parameters", None) or {}
    if model.config.model_type == "gpt_neox" and (rope["rope_theta"], rope["rope_type"]) != (10_000, "default"):
        raise UserError("--gguf: llama.cpp's converter takes rotary base 10000 without scaling for every GPT-NeoX")
    if not is_all_data(tokenizer):
        raise UserError("--gguf: llama.cpp has no tokenizer like this one, whose work is done in Python")
    pre_tokenizer(_content(tokenizer))


def _content(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return json.loads(tokenizer.backend_tokenizer.to_str())


def pre_tokenizer(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name of how a tokenizer.json's BPE divides texts; "": not at all, which is SentencePiece's BPE.

    Raises UserError where llama.cpp would give other tokens. (It does not normalise to NFC: of texts that are not
    composed it does give others.)
    """
    model, normalizer = tokenizer["model"], tokenizer["normalizer"]
    if model["type"] != "BPE":
        raise UserError(
            f"--gguf: llama.cpp cannot read texts as this tokenizer does ({model['type']}): it has no bytes for "
            "characters, line breaks among them, that are no words of it"
        )
    before = _parts(tokenizer["pre_tokenizer"], "pretokenizers")
    kinds = [part["type"] for part in before]
    if kinds in (["ByteLevel"], ["Split", "ByteLevel"]) and (normalizer or {"type": "NFC"})["type"] == "NFC":
        regex = before[0]["pattern"].get("Regex") if len(before) == 2 else None
        if (name := PRE_TOKENIZERS.get((regex, bool(model["ignore_merges"])))) and not before[-1]["add_prefix_space"]:
            return name
    elif model["byte_fallback"] and _is_sentencepiece(normalizer, before):
        return ""
    raise UserError("--gguf: llama.cpp knows none of the ways in which this tokenizer divides texts before its merges")


def _parts(step: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    return [] if step is None else step[name] if step["type"] == "Sequence" else [step]


def _is_sentencepiece(normalizer: dict[str, Any] | None, before: list[dict[str, Any]]) -> bool:
    """Whether nothing but spaces is changed, and nothing divided, before merging."""
    steps = [*_parts(normalizer, "normalizers"), *before]
    space: dict[str, dict[str, Any]] = {
        "Prepend": {"prepend": SPACE},
        "Replace": {"pattern": {"String": " "}, "content": SPACE},
        "Metaspace": {"replacement": SPACE, "split": False},
        "Split": {"pattern": {"String": " "}},
    }
    return all(step["type"] in space and step.items() >= space[step["type"]].items() for step in steps)


def _pieces(tokenizer: dict[str, Any], unknown: str | None) -> bytes:
    """A BPE with byte fallback as tokenizer.model, the one form in which the converter reads the order of its merges.

    There a piece has the better a score the earlier it is merged. `unknown` is the token of that name.
    """
    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    model.trainer_spec.model_type = model.trainer_spec.BPE
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = model.normalizer_spec.remove_extra_whitespaces = False
    ranks: dict[str, int] = {}
    for merge in tokenizer["model"]["merges"]:
        ranks.setdefault("".join(merge), len(ranks))
    added = {token["content"]: token["special"] for token in tokenizer["added_tokens"]}
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]} | tokenizer["model"]["vocab"]
    kinds = model.SentencePiece
    for text, _ in sorted(ids.items(), key=lambda item: item[1]):
        kind = kinds.NORMAL
        if text == unknown:
            kind = kinds.UNKNOWN
        elif text in added:
            kind = kinds.CONTROL if added[text] else kinds.USER_DEFINED
        elif len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            kind = kinds.BYTE
        model.pieces.add(piece=text, score=-float(ranks.get(text, len(ranks))), type=kind)
    return model.SerializeToString()


def write_gguf(llama_cpp: LlamaCpp, kind: Kind, tokenizer: PreTrainedTokenizerBase, name: str, model: Path) -> Path:
    """Convert the merged export in directory `model`; returns the GGUF file, which is in it.

    Raises UserError with what llama.cpp says when it fails.
    """
    target, content = model / f"model-{kind}.gguf", _content(tokenizer)
    dtype = {"float32": "f32", "float16": "f16"}.get(read_json(model / "config.json")["dtype"], "bf16")
    with tempfile.TemporaryDirectory(dir=model) as place:
        given = Path(place) / name
        given.mkdir()
        for path in model.iterdir():
            if path.is_file() and path.name != "tokenizer_config.json":
                (given / path.name).symlink_to(path)
        # The chat template writes the space that is in front of a text: llama.cpp must not put another one there.
        said = {"add_bos_token": bool(bos_ids(tokenizer)), "add_prefix_space": False}
        settings = read_json(model / "tokenizer_config.json") | said
        write_whole(given / "tokenizer_config.json", json.dumps(settings))
        if not (divided := pre_tokenizer(content)):
            write_whole(given / "tokenizer.model", _pieces(content, tokenizer.unk_token))
        if kind == "q4_k_m":
            whole = Path(place) / "whole.gguf"
            llama_cpp.convert(given, dtype, divided, name, whole)
            llama_cpp.quantise(whole, kind, target)
        else:
            llama_cpp.convert(given, kind, divided, name, target)
    return target
