"""A finished run is exported: its adapter, or base and adapter merged and checked, with tokenizer and model card."""

import dataclasses
import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate.utils.memory import clear_device_cache
from huggingface_hub.serialization._base import parse_size_to_int

from sft.build_base import ensure_base
from sft.data.rows import examples_of
from sft.export.card.card import model_card
from sft.export.compatible import add_old_keys, save_tokenizer, say_where_answers_begin
from sft.export.gguf.check import GgufCheck, check_gguf
from sft.export.gguf.convert import BYTES, check_convertible, write_gguf
from sft.export.gguf.llama_cpp import find_llama_cpp
from sft.export.gguf.modelfile import modelfile
from sft.export.merge_check import CheckRow, MergeCheck, check, outputs
from sft.export.request import Request
from sft.export.source import CONTEXT, QUESTION, Source, read_source
from sft.generation.generate import library_config
from sft.model.adapter import ADAPTER_FILE, believed, read_config
from sft.model.load import load_base, load_skeleton
from sft.model.lora import load_adapter, merge
from sft.model.place import resolve_device, resolve_dtype, use_all_cores
from sft.prompt.chat_template import messages_of, set_chat_template
from sft.prompt.encode import encode_answer, encode_prompt
from sft.prompt.template import history_of
from sft.run.directory import weights_directory
from sft.run.held_out import read_side, training_data
from sft.system.errors import UserError, say, warn
from sft.system.files import write_whole
from sft.system.whole_directory import RECORD, check_target, require_space, whole_directory

CHECK_ROWS = 3
"""Rows with a context, and as many without, that a merged model is compared on."""


def export(request: Request) -> None:
    """Export a finished run; the directory appears whole or not at all. Raises UserError for what does not fit."""
    source = read_source(request)
    check_shard_size(request.shard_size)
    check_target(request.target)
    for place in (request.run, Path(source.config.model.base)):
        if place.exists() and place.resolve().is_relative_to(request.target.resolve()):
            raise UserError(f"{request.target}: would be replaced by an export that is made of {place}; use --output")
    base, data = source.base, source.data
    if base.hub_id is None and request.base_id is None:
        warn([f"the base model was a directory; the card calls it {base.name}: --base-id gives its hub id"])
    if data.licence is None and data.hub_id is None:
        what = "the data were a local file" if source.manifest else "nothing says which data it was trained on"
        warn([f"{what}; say their licence with --data-license before you share this"])
    with whole_directory(request.target) as directory:
        found = write_merged(source, directory) if request.kind == "merged" else None
        if not found:
            write_adapter(source, directory)
        save_tokenizer(source.tokenizer, directory)
        if found and source.template.special_tokens is None:
            say_where_answers_begin(directory)
        source.template.save(directory)
        lines = found.lines() if found else []
        converted = add_gguf(source, directory) if request.gguf else None
        write_whole(directory / "README.md", model_card(source, lines))
        numbers = dataclasses.asdict(found) if found else {}
        unequal = numbers.pop("unequal", [])  # answers hold text of the data
        record = {"kind": request.kind, "base": base.hub_id, "check": numbers or None}
        if converted:
            record["gguf"] = dataclasses.asdict(converted)
        write_whole(directory / RECORD, json.dumps(record, indent=2) + "\n")
    answers = (f"before merging: {before!r}\nafter merging:  {after!r}" for before, after in unequal)
    for line in (*lines, *answers, *([converted.line()] if converted else ())):
        print(line)
    say(f"{request.target}: {', '.join(sorted(path.name for path in request.target.iterdir()))}")


def check_shard_size(size: str) -> None:
    """Raise UserError for what huggingface_hub does not read as a size."""
    try:
        valid = parse_size_to_int(size) > 0
    except ValueError:
        valid = False
    if not valid:
        raise UserError(f"--shard-size {size}: is not a size such as 2GB or 500MB")


def write_adapter(source: Source, directory: Path) -> None:
    """Copy the adapter, with the base model's public name in the place of a path on this machine."""
    adapter = weights_directory(source.request.run)
    require_space(directory, (adapter / ADAPTER_FILE).stat().st_size)
    shutil.copyfile(adapter / ADAPTER_FILE, directory / ADAPTER_FILE)
    lora = believed(read_config(adapter))
    lora.base_model_name_or_path, lora.revision = source.base.name, source.base.commit
    lora.save_pretrained(str(directory))


def write_merged(source: Source, directory: Path) -> MergeCheck:
    """Merge on the unquantised base, compare with what it was, and write the weights."""
    request, config, _, _, tokenizer, *_ = source
    section, device = config.model, resolve_device(config.model.device)
    dtype = resolve_dtype(section.dtype, device)
    if device.type == "cpu":
        use_all_cores()
    ensure_base(section.build, section.base)
    skeleton = load_skeleton(section.base, dtype, **section.loading)
    if getattr(skeleton.config, "quantization_config", None):  # merging into them would change answers
        raise UserError(
            f"model {section.base}: its own files are quantised; give the unquantised model with model.base=…"
        )
    size = skeleton.get_memory_footprint(return_buffers=False)
    if request.gguf:
        check_convertible(find_llama_cpp(request.llama_cpp, request.gguf), skeleton, tokenizer)
        size += int(size * (request.gguf == "q4_k_m") + skeleton.num_parameters() * BYTES[request.gguf])
    require_space(directory, size)
    rows = check_rows(source)

    def load(quantization: dict[str, Any] | None) -> Any:
        base = load_base(section.base, device, dtype, quantization, **section.loading)
        return load_adapter(base, weights_directory(request.run)).eval()

    asked = functools.partial(outputs, tokenizer=tokenizer, rows=rows, generation=config.generation)
    trained = None
    if config.quantization:
        print("reading what was trained: the quantised base and the adapter …", flush=True)
        trained = asked(load(config.quantization))
        clear_device_cache(garbage_collection=True)
    print("merging on the unquantised base …", flush=True)
    model = load(None)
    tuned = asked(model)
    with model.disable_adapter():
        base = asked(model)
    merged = merge(model)
    found = check(base, tuned, asked(merged), dtype, trained)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    merged.generation_config = library_config(source.settings, **special)
    # Weights get the names that a fresh model's would, which 4.57 knows: those of the base's files may be others'.
    merged._weight_conversions = None
    merged.save_pretrained(directory, max_shard_size=request.shard_size)
    add_old_keys(directory)
    return found


def add_gguf(source: Source, directory: Path) -> GgufCheck | None:
    """Put the merged model in `directory` beside it as a GGUF file, with a Modelfile; None: there is no server to ask.

    Raises UserError where llama.cpp fails, or answers otherwise than it should.
    """
    request, config, _, _, tokenizer, *_ = source
    assert request.gguf
    llama_cpp = find_llama_cpp(request.llama_cpp, request.gguf)
    print("converting with llama.cpp …", flush=True)
    weights = write_gguf(llama_cpp, request.gguf, tokenizer, request.run.absolute().name, directory)
    write_whole(directory / "Modelfile", modelfile(source, weights.name))
    if not llama_cpp.server:
        warn([f"{weights.name} was not compared with the merged model: there is no llama-server, see --llama-cpp"])
        return None
    device = resolve_device(config.model.device)
    merged = load_base(str(directory), device, resolve_dtype(config.model.dtype, device)).eval()
    return check_gguf(llama_cpp, weights, merged, tokenizer, check_rows(source))


def check_rows(source: Source) -> list[CheckRow]:
    """The first rows of each kind, with a context and without, that are no longer than in training.

    Of an adapter without its run no row is known: the card's question alone, and with its context.
    """
    request, config, manifest, template, tokenizer, *_ = source
    if manifest is None:
        asked = [{"instruction": QUESTION, "input": context} for context in (CONTEXT, "")]
        return [check_row(source, row) for row in asked]
    data = training_data(request.run, config)
    examples = list(examples_of(read_side(request.run, "test", data) or read_side(request.run, "train", data)))
    set_chat_template(tokenizer, template, map(dataclasses.asdict, examples[:100]))
    rows: dict[bool, list[CheckRow]] = {True: [], False: []}
    for example in examples:
        row = check_row(source, dataclasses.asdict(example))
        if len(row.whole) < config.training["max_length"]:
            rows[bool(example.input)].append(row)
    if not any(rows.values()):
        raise UserError(f"{config.data.named}: no row is short enough to compare models on")
    return [*rows[True][:CHECK_ROWS], *rows[False][:CHECK_ROWS]]


def check_row(source: Source, row: Mapping[str, Any]) -> CheckRow:
    """A row with fields instruction and input, and perhaps history and output, for models to be compared on."""
    template, tokenizer = source.template, source.tokenizer
    prompt = encode_prompt(tokenizer, template.render(row["instruction"], row["input"], history_of(row)))
    answer = encode_answer(tokenizer, row["output"]) if "output" in row else []
    messages = messages_of(template, row)
    sent = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == prompt
    return CheckRow(prompt, prompt + answer, messages if sent else ())
