"""Questions become a file of answers; an interrupted call goes on where it stopped."""

import json
import sys

from tqdm import tqdm

from sft.config.repetition_penalty import penalty_hazards
from sft.generation.answerer import Answerer
from sft.prompt.encode import eos_id
from sft.prompt.encoded_rows import digest
from sft.system.errors import UserError, say, warn
from sft.system.files import write_whole
from sft.system.progress import Progress


def answer_file(answerer: Answerer, rows: list[dict[str, object]], progress: Progress, system: str) -> None:
    """Answer all rows in batches and write them, in their order, with `answer` and `finish_reason` added.

    `progress` is of the file that is `claimed`. Answers that an interrupted call with the same questions, model and
    settings has found are not looked for again.
    """
    prompts: dict[int, list[int]] = {}
    for position, row in enumerate(rows):
        try:
            prompts[position] = answerer.prompt(str(row["instruction"]), str(row.get("input") or "")).ids
        except UserError as error:
            print(f"row {position + 1}: {error}", file=sys.stderr)
            row |= {"answer": "", "finish_reason": "error"}
    settings = json.dumps(answerer.generation, sort_keys=True)
    progress.begin(digest(answerer.identity, system, settings, json.dumps(rows)))
    positions, ids = list(prompts), list(prompts.values())
    contexts = [str(rows[position].get("input") or "") for position in positions]
    warn(penalty_hazards(answerer.generation, contexts, ids, eos_id(answerer.tokenizer)))
    left = [place for place in range(len(ids)) if place not in progress.done]
    with tqdm(total=len(ids), initial=len(progress.done), unit="answer", desc="answering") as bar:
        for _, number, answer in answerer.answer_all([ids[place] for place in left]):
            progress.add(left[number], [answer.text, answer.finish_reason])
            bar.update()
    for place, (text, finish_reason) in progress.all_results().items():
        rows[positions[place]] |= {"answer": text, "finish_reason": finish_reason}
    write_whole(progress.path, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows), new=True)
    progress.remove()
    say(f"{progress.path}: {len(rows)} answers", sys.stderr)
