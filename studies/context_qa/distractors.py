"""Training rows whose contexts stand beside another row's, so that copying a context's beginning no longer answers.

    python -m studies.context_qa.distractors studies/context_qa/gemma3-270m.yaml OUTPUT [section.key=value …]

Writes the training side of the study's rows to OUTPUT (JSON lines), which the arm `distractors` reads whole. A row with
a context gets that of the next such row, in the order of a hash, in front of its own or behind it.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path

from sft.config.load import load_config
from sft.data.read import load_data
from sft.data.records import Example
from sft.data.rows import examples_of
from sft.data.split import split_rows
from sft.system.command_line import command_parser
from sft.system.errors import UserError, exit_on_user_error, say
from sft.system.files import write_whole
from studies.context_qa.plan import Study, load_study


def main() -> None:
    """Read the command line and write the rows."""
    parser = command_parser(__doc__, "python -m studies.context_qa.distractors")
    parser.add_argument("study", type=Path, help="a YAML file, e.g. studies/context_qa/gemma3-270m.yaml")
    parser.add_argument("output", type=Path, help="the file of rows, a new one")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the study's file")
    arguments = parser.read()
    with exit_on_user_error():
        write_distractors(load_study(arguments.study, arguments.overrides), arguments.output)


def write_distractors(study: Study, output: Path) -> None:
    """Write the study's training rows, their contexts beside others, into the new file `output`.

    Raises UserError where it is there already, and as `with_distractors` does.
    """
    section = load_config(study.config, study.common).data
    data = load_data(section.sources, section.leave_out, section.groups)
    split = split_rows(data.rows, *section.shares, [file.side for file in data.files])
    rows = list(examples_of(split.train))
    write_whole(output, (f"{line}\n" for line in _lines(rows)), new=True)
    count = sum(bool(row.input) for row in rows)
    say(f"{output}: {len(rows):,} training rows, {count:,} of them with two contexts")


def _lines(rows: list[Example]) -> Iterator[str]:
    for row, context in zip(rows, with_distractors(rows), strict=True):
        fields = {"index": row.index, "instruction": row.instruction, "input": context, "output": row.output}
        yield json.dumps(fields | {"category": row.category}, ensure_ascii=False)


def with_distractors(rows: Iterable[Example]) -> Iterator[str]:
    """Each row's context with another's in front of it or behind it; of a row without one, the empty text.

    Raises UserError when a row has turns before its question, and when all contexts are the same.
    """
    rows = list(rows)
    if any(row.history for row in rows):
        raise UserError("a row has turns before its question, which this study has no place for")
    contexts = [row.input for row in rows if row.input]
    if contexts and len(set(contexts)) == 1:
        raise UserError("all rows have the same context, so none has another's")
    at = 0
    for row in rows:
        if not row.input:
            yield ""
            continue
        at += 1
        other = next(one for one in islice(cycle(contexts), at, None) if one != row.input)
        yield "\n\n".join([row.input, other] if at % 2 else [other, row.input])


if __name__ == "__main__":
    main()
