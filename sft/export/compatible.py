"""Files of an export as transformers 4.57 and 5 read them alike, with nothing of this machine in them."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from sft.prompt.encode import is_all_data
from sft.system.files import read_json, write_whole

OF_THIS_MACHINE = ("is_local", "local_files_only", "name_or_path", "vocab_file", "tokenizer_file")
"""What transformers 5 notes of how a tokenizer was loaded."""

ROTARY = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
"""GPT-NeoX's and GPT-NeoX-Japanese's names of what other architectures call as transformers 5 does."""

OWN_CHATS = ("qwen", "gemma4")
"""Model types whose answers `transformers serve` (5.23) looks for behind the marks of the base's own chat."""


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write the tokenizer's files, with a configuration that does not depend on what a version makes of a class.

    A tokenizer whose work is all in tokenizer.json is named with the one class that does nothing of its own; others,
    in Python, keep theirs.
    """
    tokenizer.save_pretrained(directory)
    path = directory / "tokenizer_config.json"
    if is_all_data(tokenizer):
        settings = plain_settings(tokenizer)
    else:
        settings = {key: value for key, value in read_json(path).items() if key not in OF_THIS_MACHINE}
    _write(path, settings)


def plain_settings(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What tokenizer_config.json has to say of a tokenizer that tokenizer.json holds."""
    # Those that it has not are said, too: AutoTokenizer may take another class by the model's type, with its defaults.
    named = {f"{name}_token": getattr(tokenizer, f"{name}_token") for name in ("bos", "eos", "pad", "unk")}
    named |= tokenizer.special_tokens_map
    newline = tokenizer.init_kwargs.get("newline")
    pre_tokenizer = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"] or {}
    # 4.57 sets a byte-level tokenizer's space in front of texts to what is said here, and where nothing is, to none.
    space = {key: value for key, value in pre_tokenizer.items() if key == "add_prefix_space"}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
        "additional_special_tokens": sorted(set(tokenizer.all_special_tokens) - set(named.values())),
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],  # 4.57 would add token_type_ids, which models refuse
        "model_max_length": tokenizer.model_max_length,
        **space,
        **({"newline": newline} if newline else {}),
    }


def add_old_keys(directory: Path) -> None:
    """Say in config.json, beside transformers 5's words, the same in those of 4.57."""
    path = directory / "config.json"
    _write(path, with_old_keys(read_json(path)))


def say_where_answers_begin(directory: Path) -> None:
    """Say in tokenizer_config.json that an answer is all that comes behind the prompt, up to the end token.

    For a merged model with a prompt of this program. Only where `transformers serve` would take another reading, and
    return the prompt with the answer: transformers' pipelines show end tokens of a tokenizer that says it.
    """
    if not read_json(directory / "config.json")["model_type"].startswith(OWN_CHATS):
        return
    path = directory / "tokenizer_config.json"
    settings = read_json(path)
    answer = {"content": "text", "close": [settings["eos_token"]]}
    settings["response_template"] = {
        "defaults": {"role": "assistant", "content": ""},
        "start_anchor_pattern": r"\Z",  # the prompt's end
        "fields": {"content": answer},
    }
    _write(path, settings)


def with_old_keys(config: dict[str, Any]) -> dict[str, Any]:
    """A model's configuration as transformers 5 writes it, with the keys that 4.57 reads in their places.

    Without them 4.57 takes its defaults, in silence: a quarter of the rotary dimensions, another base, no scaling.
    """
    old = {"torch_dtype": config["dtype"]} if "dtype" in config else {}
    rope = config.get("rope_parameters") or {}
    if "full_attention" in rope:  # Gemma 3: of sliding attention only the base can be said
        old["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    names = ROTARY if config["model_type"].startswith("gpt_neox") else {name: name for name in ROTARY}
    old |= {names[key]: rope[key] for key in ROTARY if key in rope}
    if rope.get("rope_type", "default") != "default":
        old["rope_scaling"] = {key: value for key, value in rope.items() if key not in ROTARY}
    return config | old


def _write(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n")
