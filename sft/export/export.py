"""What of a finished run goes into an export, and how it is written."""

import dataclasses
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub.serialization._base import parse_size_to_int
from peft import LoraConfig
from transformers import PreTrainedTokenizerBase

from sft.build_base import ensure_base
from sft.config.load import load_config
from sft.config.sections import Config
from sft.data.records import Example
from sft.export.card import CONTEXT, QUESTION, Kind, evaluation, model_card
from sft.export.licences import named_base, named_data
from sft.export.merge_check import CheckRow, MergeCheck, check, free_memory, outputs, weight_bytes
from sft.export.upload import check_hub_id
from sft.generation.generate import library_config
from sft.generation.settings import effective_settings
from sft.model.adapter import ADAPTER_FILE, check_adapter, check_trained_on
from sft.model.load import load_base, load_skeleton, load_tokenizer
from sft.model.lora import load_adapter, merge
from sft.model.place import resolve_device, resolve_dtype, use_all_cores
from sft.prompt.chat_template import set_chat_template
from sft.prompt.encode import encode_answer, encode_prompt
from sft.prompt.template import PromptTemplate
from sft.run.directory import check_learned, require_finished, run_config
from sft.run.held_out import read_side, training_data
from sft.run.manifest import FinishedManifest
from sft.system.errors import UserError
from sft.system.files import read_json, write_whole
from sft.system.whole_directory import RECORD, check_target, require_space, whole_directory

CHANGEABLE = ("model.base=", "model.trust_remote_code=", "model.device=", "model.dtype=", "data.path=", "generation.")
CHECK_ROWS = 3
"""Rows with a context, and as many without, that a merged model is compared on."""


class Source(NamedTuple):
    """A finished run, and what of it goes into an export of either kind."""

    run: Path
    config: Config
    manifest: FinishedManifest
    template: PromptTemplate
    tokenizer: PreTrainedTokenizerBase
    settings: dict[str, Any]


def export(
    run: Path,
    target: Path,
    overrides: Sequence[str] = (),
    merge: bool = False,
    shard_size: str = "2GB",
    base_id: str | None = None,
    data_licence: str | None = None,
    model_id: str | None = None,
) -> None:
    """Export a finished run to `target`, which appears whole or not at all.

    `base_id` names the base model where it was a directory, `data_licence` the licence of data that were a file,
    `model_id` the place on the hub that it is meant for. Raises UserError for anything that does not fit.
    """
    source = read_source(run, overrides)
    results = read_results(run)
    check_shard_size(shard_size)
    check_target(target)

    base = named_base(source.config, source.manifest, base_id)
    data = named_data(source.config, source.manifest, data_licence)
    for key, name in (("model.base", base.hub_id), ("data.path", data.hub_id)):
        if name:  # they become links and code in the card
            check_hub_id(key, name)
    if base.commit and not re.fullmatch(r"[\w./-]+", base.commit):
        raise UserError(f"model.revision {base.commit}: is not the name of a commit, tag or branch")
    if base.hub_id is None:
        print(f"warning: the base model was a directory; the card calls it {base.name}: --base-id gives its hub id")
    if data.licence is None and data.hub_id is None:
        print("warning: the data were a local file; say its licence with --data-license before you share this")
    kind: Kind = "merged" if merge else "adapter"
    with whole_directory(target) as directory:
        found = None
        if merge:
            found = write_merged(source, directory, shard_size)
        else:
            write_adapter(source, directory, base.name, base.commit)
        source.tokenizer.save_pretrained(directory)
        source.template.save(directory)
        lines = found.lines() if found else []
        card = model_card(
            kind, model_id, source.config, source.manifest, source.template, source.settings, base, data,
            results, lines,
        )  # fmt: skip
        write_whole(directory / "README.md", card)
        record = {"kind": kind, "base": base.hub_id, "check": summary(found)}
        write_whole(directory / RECORD, json.dumps(record, indent=2) + "\n")
    for line in lines:
        print(line)
    for before, after in found.unequal if found else ():
        print(f"before merging: {before!r}\nafter merging:  {after!r}")
    print(f"{target}: {', '.join(sorted(path.name for path in target.iterdir()))}")


def read_source(run: Path, overrides: Sequence[str]) -> Source:
    """Read what is exported, without any weights. Raises UserError for a run that cannot be."""
    manifest = require_finished(run)
    for override in overrides:
        if not override.startswith(CHANGEABLE):
            raise UserError(f"command line: {override}: the training settled it; export can change {CHANGEABLE}")
    config = run_config(run, overrides)

    if config.lora is None:
        raise UserError(
            f"{run}: all weights were trained, and there is no adapter to export: {run / 'model'} is the model"
        )
    settings = effective_settings(config.generation)
    library_config(settings)
    check_adapter(run / "adapter")
    check_trained_on(run / "adapter", load_config(run / "config.yaml", to_train=False).model.base)
    check_learned(run)
    template = PromptTemplate.load(run / "adapter")
    tokenizer = load_tokenizer(str(run / "adapter"), trust_remote_code=config.model.trust_remote_code)
    set_chat_template(tokenizer, template, [{"instruction": QUESTION, "input": text} for text in ("", CONTEXT)])
    return Source(run, config, manifest, template, tokenizer, settings)


def write_adapter(source: Source, directory: Path, base: str, commit: str | None) -> None:
    """Copy the adapter, with the base model's public name in the place of a path on this machine."""
    adapter = source.run / "adapter"
    require_space(directory, (adapter / ADAPTER_FILE).stat().st_size)
    shutil.copyfile(adapter / ADAPTER_FILE, directory / ADAPTER_FILE)
    lora = LoraConfig.from_pretrained(str(adapter))
    lora.base_model_name_or_path, lora.revision = base, commit
    lora.save_pretrained(str(directory))


def write_merged(source: Source, directory: Path, shard_size: str) -> MergeCheck:
    """Merge on the unquantised base, compare with what it was, and write the weights."""
    section = source.config.model
    device = resolve_device(section.device)
    dtype = resolve_dtype(section.dtype, device)
    if device.type == "cpu":
        use_all_cores()
    ensure_base(section.build, section.base)
    require_space(directory, weight_bytes(load_skeleton(section.base, dtype, **section.loading)))
    examples = training_data(source.run, source.config)
    examples = read_side(source.run, "test", examples) or read_side(source.run, "train", examples)
    set_chat_template(source.tokenizer, source.template, map(dataclasses.asdict, examples[:100]))
    rows = check_rows(source, examples)

    def load(quantization: dict[str, Any] | None) -> Any:
        base = load_base(section.base, device, dtype, quantization, **section.loading)
        return load_adapter(base, source.run / "adapter").eval()

    def asked(model: Any) -> Any:
        return outputs(model, source.tokenizer, rows, source.config.generation)

    trained = None
    if source.config.quantization:
        print("reading what was trained: the quantised base and the adapter …", flush=True)
        model = load(source.config.quantization)
        trained = asked(model)
        del model
        free_memory()
    print("merging on the unquantised base …", flush=True)
    model = load(None)
    tuned = asked(model)
    with model.disable_adapter():
        base = asked(model)
    merged = merge(model)
    found = check(base, tuned, asked(merged), dtype, trained)
    ids = source.tokenizer
    merged.generation_config = library_config(
        source.settings, bos_token_id=ids.bos_token_id, eos_token_id=ids.eos_token_id, pad_token_id=ids.pad_token_id
    )
    merged.save_pretrained(directory, max_shard_size=shard_size)
    return found


def check_rows(source: Source, examples: Sequence[Example]) -> list[CheckRow]:
    """The first rows of each kind, with a context and without, that are no longer than in training."""
    rows: dict[bool, list[CheckRow]] = {True: [], False: []}
    for example in examples:
        prompt = encode_prompt(source.tokenizer, source.template.render(example.instruction, example.input))
        row = CheckRow(prompt, prompt + encode_answer(source.tokenizer, example.output))
        chosen = rows[bool(example.input)]
        if len(chosen) < CHECK_ROWS and len(row.whole) < source.config.training["max_length"]:
            chosen.append(row)
    if not any(rows.values()):
        raise UserError(f"{source.config.data.path}: no row is short enough to compare models on")
    return [*rows[True], *rows[False]]


def summary(found: MergeCheck | None) -> dict[str, Any] | None:
    """The check's numbers, without the answers, which hold text of the data."""
    if found is None:
        return None
    values = {field.name: getattr(found, field.name) for field in dataclasses.fields(found) if field.name != "unequal"}
    return {key: value._asdict() if hasattr(value, "_asdict") else value for key, value in values.items()}


def read_results(run: Path) -> dict[str, Any] | None:
    """The run's evaluation on its held-out rows, None where there is none. Raises UserError for another version's."""
    path = run / "eval" / "results.json"
    if not path.is_file():
        return None
    results = read_json(path)
    if not isinstance(results, dict) or results.get("schema_version") != 2 or "tuned" not in results.get("systems", ()):
        raise UserError(f"{path}: is not this version's evaluation of a run; evaluate it again, or move the file away")

    try:
        evaluation(results)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path}: is damaged; evaluate the run again, or move the file away") from None
    return dict(results)


def check_shard_size(size: str) -> None:
    """Raise UserError for what huggingface_hub does not read as a size."""
    try:
        if parse_size_to_int(size) > 0:
            return
    except ValueError:
        pass
    raise UserError(f"--shard-size {size}: is not a size such as 2GB or 500MB")
