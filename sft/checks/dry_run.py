"""What training would do, without doing it: the rows, and the doctor's page about this configuration."""

import sys

from rich.console import Console

from sft.checks import doctor
from sft.checks.checks import model_checks, row_checks, weightless
from sft.checks.data_checks import data_checks
from sft.checks.doctor import Line
from sft.checks.model_checks import sources
from sft.config.sections import Config
from sft.model.base_identity import base_identity
from sft.model.load import load_tokenizer
from sft.model.place import resolve_device, resolve_dtype
from sft.plan.cards import find_card
from sft.plan.prepare import Plan, prepare, read_rows, read_tokenizer
from sft.prompt.encode import encode_texts
from sft.run.parent import read_parent
from sft.system.errors import UserError
from sft.system.processes import RANK
from sft.system.texts import said, text


def dry_run(config: Config, card_name: str | None, others: list[str]) -> None:
    """Show what training would do, and the doctor's page. Exits with 1 when a line of it is red.

    `card_name` is the GPU to fit into (None: only what is needed), `others` tokenizers to compare with.
    """
    card = find_card(card_name) if card_name else None
    compared = {name: load_tokenizer(name, None, config.model.trust_remote_code) for name in others}
    data, split = read_rows(config)
    tokenizer, template = read_tokenizer(config)
    categories, texts = doctor.texts_of(split.train)
    ids = encode_texts(tokenizer, texts)
    shares = doctor.tokens_per_character(categories, texts, ids)
    lines = doctor.tokenizer_checks(tokenizer, template.render("質問", "文脈"))
    lines.append(doctor.export_check(tokenizer, template, split.train))
    lines += [doctor.row_texts(tokenizer, texts, ids), doctor.efficiency(shares)]
    lines += data_checks(data, split, config.data.allow_dropped)
    del ids  # large, and of no more use
    columns = {config.model.tokenizer or config.model.base: shares}
    for name, other in compared.items():
        columns[name] = doctor.tokens_per_character(categories, texts, encode_texts(other, texts))
    try:
        model = weightless(config)
    except UserError as error:
        model = None
        lines.append(Line("red", "model", *str(error).removeprefix("model ").split("; ", 1)))
    if model and tokenizer.eos_token_id is not None:  # without them no row can be made, or laid out
        plan = prepare(config, data, split, tokenizer, template)
        lines += parent_checks(config, plan)
        lines += [*row_checks(config, plan), *model_checks(config, plan, model, card)]
    lines += setting_checks(config)
    if RANK == 0:
        doctor.show(Console(), lines, columns)
        print(text("doctor.nothing_trained"))
        if any(line.level == "red" for line in lines):
            sys.exit(1)


def parent_checks(config: Config, plan: Plan) -> list[Line]:
    """The doctor's line about the run that this one goes on from, if it does."""
    if config.model.adapter is None:
        return []
    try:
        base = base_identity(config.model)
        parent = read_parent(config, base, plan.encoder.tokenizer_sha256, plan.template.sha256)
        if parent is None:
            return []
        return [Line("green", "adapter", said("doctor.goes_on", run=parent.run, date=parent.started))]
    except UserError as error:
        return [Line.of("red", "adapter", error)]


def setting_checks(config: Config) -> list[Line]:
    """The doctor's lines about where things come from and where training would run."""
    model, data = config.model, config.data
    repositories = {"model": (model.base, model.revision)}
    for number, source in enumerate(data.sources, start=1):
        repositories["data" if len(data.sources) == 1 else f"data.path[{number}]"] = source.path, source.revision
    lines = sources(repositories, model.trust_remote_code)
    try:
        device = resolve_device(model.device)
        dtype = str(resolve_dtype(model.dtype, device)).removeprefix("torch.")
        return [*lines, Line("green", "device", f"{device}, {dtype}")]
    except UserError as error:
        return [*lines, Line.of("yellow", "device", error)]
