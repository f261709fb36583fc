"""The page on which a run is shown: a question, both models' answers side by side, and what people say of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from sft.ask.asker import Asker, Grown, Question
from sft.config.repetition_penalty import PENALTY, SCOPE
from sft.data.records import Example, category_label
from sft.run.feedback import RATED, ROWS, Rated, Rating, rate
from sft.system.errors import UserError
from sft.system.shared_spans import shared_spans
from sft.system.texts import Count, text
from sft.system.visible import escaped, visible

SYSTEMS = ("tuned", "base")
Marked = list[tuple[str, str | None]]
"""A text in pieces, each with its mark or None."""


class Values(NamedTuple):
    """What somebody filled in; None of a number that was left empty."""

    instruction: str
    context: str
    reference: str
    category: str | None
    both: bool
    temperature: float | None
    max_new_tokens: float | None
    penalty: float | None
    scope: str

    @property
    def settings(self) -> list[str]:
        """The settings as words of the command line; a number that was left empty is refused as that."""
        tokens = self.max_new_tokens
        found = {
            "temperature": self.temperature,
            "max_new_tokens": int(tokens) if tokens is not None and tokens == int(tokens) else tokens,
            PENALTY: self.penalty,
            SCOPE: self.scope,
        }
        return [f"generation.{key}={'null' if value is None else value}" for key, value in found.items()]


class Outputs(NamedTuple):
    """What the page shows of the answers to one question."""

    tuned: gr.HighlightedText
    base: gr.HighlightedText
    context: gr.HighlightedText
    status: gr.Textbox


def build_page(asker: Asker, examples: Sequence[Example]) -> gr.Blocks:
    """The page for a loaded run; `examples` are held-out rows to ask with one click, none where there are none."""
    run = asker.answerer.run
    with gr.Blocks(title=text("page.title", run=run.name), analytics_enabled=False) as page:
        gr.Markdown("## " + escaped(text("page.title", run=run.name)))
        gr.Markdown(text("page.stands_alone"))
        instruction = gr.Textbox("", label=text("page.instruction"), lines=2, elem_id="instruction", autofocus=True)
        context = gr.Textbox("", label=text("page.context"), lines=4, max_lines=12, elem_id="context")
        with gr.Row():
            ask = gr.Button(text("page.ask"), variant="primary", elem_id="ask")
            stop = gr.Button(text("page.stop"), elem_id="stop")
        both = gr.Checkbox(True, label=text("page.both"), elem_id="both")
        outputs, buttons = _answers()
        reference = gr.Textbox("", label=text("page.reference"), interactive=False, elem_id="reference", max_lines=6)
        with gr.Accordion(text("page.correct"), open=False, elem_id="correct"):
            correction = gr.Textbox("", label=text("page.correction"), lines=3, elem_id="correction")
            category = gr.Textbox("", label=text("page.category"), elem_id="category")
            save = gr.Button(text("page.save"), interactive=False, elem_id="save")
        filled = [instruction, context, reference, category]
        if examples:
            _examples(examples, filled)
        instruction.input(lambda: ("", ""), outputs=[reference, category], api_visibility="private")
        fields: list[gr.Component] = [*filled, both, *_settings(asker.answerer.generation)]  # as `Values` has them
        shown = gr.State(None)
        rated = [*buttons, save]
        _wire_asking(asker, fields, outputs, (ask, stop), rated, correction, shown)
        sides = [(system, what) for system in SYSTEMS for what in RATED[:2]] + [("tuned", RATED[2])]
        for button, (system, what) in zip(rated, sides, strict=True):
            values = [shown, correction, category, instruction]
            button.click(partial(_rate, run, system, what), values, [shown, outputs.status], api_visibility="private")
        page.unload(_leaving(asker))
    return page


def _leaving(asker: Asker) -> Callable[[gr.Request], None]:
    def leave(request: gr.Request) -> None:
        asker.leave(str(request.session_hash))

    return leave


def _answers() -> tuple[Outputs, list[gr.Button]]:
    """Where both answers are shown, and the buttons that rate them: two for the tuned model's, two for the base's."""
    status = gr.Textbox("", label=text("page.status"), interactive=False, elem_id="status", lines=2, max_lines=6)
    boxes, buttons = [], []
    with gr.Row():
        for system in SYSTEMS:
            with gr.Column(min_width=300):
                boxes.append(_marked_box(_label(system), system))
                with gr.Row():
                    for name, label in (("good", text("page.good")), ("bad", text("page.bad"))):
                        buttons.append(gr.Button(label, size="sm", interactive=False, elem_id=f"{name}-{system}"))
    return Outputs(boxes[0], boxes[1], _marked_box(text("page.context_marked"), "shared"), status), buttons


def _examples(examples: Sequence[Example], fields: list[gr.Textbox]) -> None:
    gr.Examples(
        [[row.instruction, row.input, "\n".join(row.references), row.category] for row in examples],
        fields,
        label=text("page.examples"),
        example_labels=[f"{category_label(row.category)}: {row.instruction[:40]}" for row in examples],
        examples_per_page=len(examples),
        elem_id="examples",
        api_visibility="private",
    )


def _settings(generation: Mapping[str, Any]) -> list[gr.Component]:
    """Temperature, length, penalty and what it counts, each explained."""
    with gr.Accordion(text("page.settings"), open=False, elem_id="settings"):
        numbers = [
            gr.Number(generation[key], label=key, info=info, elem_id=key)
            for key, info in (
                ("temperature", text("page.temperature")),
                ("max_new_tokens", text("page.tokens")),
                (PENALTY, text("page.penalty")),
            )
        ]
        scope = gr.Radio(["generated", "all"], value=generation[SCOPE], label=SCOPE, info=text("page.scope"))
    return [*numbers, scope]


def _label(system: str) -> str:
    return text("ask.tuned") if system == "tuned" else text("ask.base")


def _marked_box(label: str, name: str) -> gr.HighlightedText:
    colours = {text("page.shared"): "#f5c518"}
    return gr.HighlightedText(
        label=label, show_inline_category=False, color_map=colours, elem_id=name, elem_classes=["answer"]
    )


def _wire_asking(
    asker: Asker,
    fields: Sequence[Any],
    outputs: Outputs,
    ask_stop: tuple[gr.Button, gr.Button],
    rated: Sequence[gr.Button],
    correction: gr.Textbox,
    shown: gr.State,
) -> None:
    """Ask, answer, and then let people rate; stopping passes the queue."""
    ask, stop = ask_stop

    def begin(request: gr.Request) -> list[Any]:
        asker.begin(str(request.session_hash))
        return [text("page.waiting"), None, "", *(gr.update(interactive=False) for _ in rated)]

    def answer(request: gr.Request, *values: Any) -> Iterator[list[Any]]:
        yield from _answered(asker, str(request.session_hash), Values(*values))

    def finish(found: dict[str, Any] | None) -> list[Any]:
        whole = found["whole"] if found else []
        switched = [system in whole for system in SYSTEMS for _ in range(2)] + ["tuned" in whole]
        said = found["said"].get("tuned", "") if found else ""
        return [said, *(gr.update(interactive=on) for on in switched)]

    gr.on(
        [ask.click, fields[0].submit],
        begin,
        outputs=[outputs.status, shown, correction, *rated],
        queue=False,
        api_visibility="private",
    ).then(
        answer,
        list(fields),
        [*outputs, shown],
        concurrency_limit=1,
        concurrency_id="model",
        show_progress="hidden",
        api_visibility="private",
    ).then(finish, [shown], [correction, *rated], api_visibility="private")
    stop.click(_stopping(asker), queue=False, api_visibility="private")


def _stopping(asker: Asker) -> Callable[[gr.Request], None]:
    def stop(request: gr.Request) -> None:
        asker.stop(str(request.session_hash))

    return stop


def _answered(asker: Asker, person: str, given: Values) -> Iterator[list[Any]]:
    """What the page shows while models answer: texts with marks, a line of status, and what is rated at the end."""
    said: dict[str, str] = {}
    whole: list[str] = []
    cut_off: list[str] = []
    lines: dict[str, str] = {}
    hints: Sequence[str] = ()
    context = given.context.strip()
    systems = SYSTEMS if given.both else SYSTEMS[:1]
    status = text("page.waiting")

    def page(found: dict[str, Any] | None = None) -> list[Any]:
        marked = [marks(said.get(system, ""), context) for system in SYSTEMS]
        return [*marked, marks(context, said.get("tuned", "")), status, found]

    yield page()
    try:
        for grown in asker.answers(person, Question(given.instruction, context, systems, given.settings)):
            said[grown.system] = grown.text
            lines[grown.system] = _status(grown, int(given.max_new_tokens or 0))
            hints = grown.hints
            status = "\n".join([*lines.values(), *hints])
            whole += [grown.system] * (grown.ended not in (None, "stopped") and bool(grown.text))
            cut_off += [grown.system] * (grown.ended == "length")
            yield page()
        for system in systems:
            lines.setdefault(system, f"{_label(system)}: {text('ask.stopped')}")  # before it was begun
        status = "\n".join([*lines.values(), *hints])
    except UserError as error:
        status = f"error: {error}"
    asked = {"instruction": given.instruction.strip(), "input": context, "category": given.category}
    yield page({**asked, "said": said, "whole": whole, "cut_off": cut_off, "ratings": {}})


def _status(grown: Grown, limit: int) -> str:
    """How far one model's answer is."""
    if grown.ended is None:
        return text("page.answering", model=_label(grown.system))
    if grown.ended == "stopped":
        said = text("ask.stopped")
    elif not grown.text:
        said = text("ask.empty")
    elif grown.ended == "length":
        said = text("page.cut_off", limit=Count(limit))
    else:
        said = text("page.done")
    return f"{_label(grown.system)}: {said}"


def marks(shown: str, source: str) -> Marked:
    """A text in pieces, those marked that stand in `source`, too."""
    pieces: Marked = []
    at, mark = 0, text("page.shared")
    for start, end in shared_spans(shown, source) if source else []:
        pieces += [(visible(shown[at:start]), None)] * (start > at) + [(visible(shown[start:end]), mark)]
        at = end
    return pieces + [(visible(shown[at:]), None)] * (at < len(shown))


def _rate(
    run: Path,
    system: str,
    what: Rated,
    shown: dict[str, Any] | None,
    correction: str | None,
    category: str | None,
    instruction: str | None,
) -> tuple[dict[str, Any] | None, str]:
    """Keep what somebody said of the answer shown; said again, it takes the place of the first.

    `category` is that of the question in `instruction`, which may be another by now.
    """
    if not shown or system not in shown["whole"]:
        return shown, text("page.nothing_to_rate")
    correction = correction or ""  # what stands in a part that was never opened comes as None
    if what == "corrected" and correction.strip() in ("", shown["said"][system]):
        return shown, text("page.not_corrected")
    if (instruction or "").strip() != shown["instruction"]:
        category = None
    before = shown["ratings"].get(system)
    rating = Rating(
        instruction=shown["instruction"],
        input=shown["input"],
        said=shown["said"][system],
        model=system,  # type: ignore[arg-type]  # one of SYSTEMS
        rating=what,
        correction=correction.strip() if what == "corrected" else "",
        category=(category or shown["category"] or "").strip(),
        cut_off=system in shown["cut_off"],
    )
    try:
        rate(run, rating, before and Rating(**before))
    except UserError as error:
        return shown, f"error: {error}"
    if rating.row():
        kept = text("page.kept", path=run / ROWS)
    else:
        kept = text("page.noted") if what == "bad" else text("page.no_row")
    return {**shown, "ratings": {**shown["ratings"], system: rating.model_dump()}}, kept
