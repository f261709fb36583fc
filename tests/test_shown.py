"""Texts of data and models are shown, not obeyed: terminal, rich, HTML, Markdown, SVG, on every way they take."""

import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch
from odd_texts import TEXTS
from rich.console import Console

from eval.predictions import Prediction, write_predictions
from eval.render.terminal import Row, print_rows
from eval.sweep import report_sweep
from sft.ask.question import ask
from sft.checks import doctor
from sft.data.records import Example
from sft.generation.generate import Answer
from sft.generation.streamer import CharacterStreamer
from sft.plan.preview import show_example
from sft.system.errors import UserError, warn
from sft.system.visible import LINE_LIMIT, escaped, one_line, visible

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
HOSTILE = "".join(TEXTS.values())


def test_control_characters_and_direction_marks_become_visible_and_the_rest_stays() -> None:
    everything = "".join(map(chr, range(0x110000)))
    kept = set(visible(everything))
    controls = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), *map(chr, range(0xD800, 0xE000))} - {"\n", "\t"}
    marks = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\ufffe\uffff")
    assert set(everything) - kept == controls | marks
    assert visible("a\r\nb\rc\vd\u2028e\x1b[2J\x9b") == "a\nb\nc\nd\ne�[2J�"
    family = "👩‍👩‍👧 葛󠄀 é"
    assert visible(family) == family


def test_a_message_is_one_line_of_bounded_length() -> None:
    assert one_line("a\nb\r\n\x1b[31m\u202ec") == "a b �[31m�c"
    assert len(one_line("x" * 10**6)) == LINE_LIMIT + 1
    assert str(UserError("a\nb\x1b")) == "a b�"


def test_markdown_shows_a_text_as_it_is() -> None:
    for text in TEXTS.values():
        line = escaped(text)
        assert "\n" not in line
        assert not OBEYED.search(line)
        assert "<" not in line
        assert not re.search(r"(?<!\\)(\\\\)*[|`*\[\]]", line)


@pytest.mark.parametrize("name", TEXTS)
def test_an_answer_is_streamed_visibly(tokenizer, capsys, name) -> None:
    text = TEXTS[name]

    class Fake:
        generation = {"max_new_tokens": 9}  # noqa: RUF012
        tokenizer: object

        def ends(self, generation: dict[str, int]) -> None:
            return None

        def prompt(self, instruction: str, context: str) -> SimpleNamespace:
            return SimpleNamespace(ids=[1], context_shortened=False)

        def answer(self, prompts: list[list[int]], streamer: CharacterStreamer, *_: object) -> Answer:
            streamer.put(torch.tensor([[1]]))
            for token in tokenizer(text, split_special_tokens=True)["input_ids"]:
                streamer.put(torch.tensor([token]))
            streamer.end()
            return Answer(text, "eos", 9)

    fake = Fake()
    fake.tokenizer = tokenizer
    ask(fake, "問い", "", set())
    shown = capsys.readouterr().out
    assert not OBEYED.search(shown)
    # A carriage return and the line feed behind it may come in two tokens, and are two breaks then.
    assert re.sub("\n+", "\n", shown).strip() == re.sub("\n+", "\n", visible(text)).strip()


def printed(show) -> str:
    """What `show` prints to a terminal that knows no colours, so that every escape would be somebody else's."""
    file = io.StringIO()
    show(Console(file=file, width=200, color_system=None, force_terminal=True))
    return file.getvalue()


def test_the_preview_the_doctor_and_tables_show_markup_and_escapes_as_text(tokenizer) -> None:
    ids = tokenizer(HOSTILE, split_special_tokens=True)["input_ids"]
    row = {"input_ids": ids, "labels": [-100, *ids[1:]]}
    preview = printed(lambda console: show_example(console, [row], tokenizer))
    lines, shares = [doctor.Line("red", "texts", HOSTILE, HOSTILE)], doctor.Shares({HOSTILE: 1.0}, 1.0)
    page = printed(lambda console: doctor.show(console, lines, {HOSTILE: shares}))
    table = printed(lambda console: print_rows(HOSTILE, [HOSTILE], [Row(HOSTILE, [HOSTILE])], console))
    for output in (preview, page, table):
        assert not OBEYED.search(output)
    for output in (preview, page):
        assert "[boldred]太字[/][link=https://example.com]x[/link]" in "".join(output.split())


def test_warnings_and_errors_cannot_move_the_cursor(capsys) -> None:
    warn([HOSTILE])
    assert not OBEYED.search(capsys.readouterr().err)


def test_a_dry_run_over_hostile_rows_prints_nothing_to_be_obeyed(program, tiny_base, tmp_path) -> None:
    rows = [
        {"instruction": text, "input": text, "output": f"答え{text}", "category": "closed_qa"}
        for text in TEXTS.values()
    ]
    path = tmp_path / "rows.jsonl"
    bad = {"instruction": "\x1b[2J", "output": "", "category": "\x1b]0;題\x07"}
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, bad]), encoding="utf-8")
    words = [f"model.base={tiny_base}", "model.build=null", f"data.path={path}", "training.total_batch_size=4"]
    result = program("train_sft", "configs/tiny.yaml", *words, "data.test_share=0", "--dry-run")
    assert "Traceback" not in result.stderr
    assert "dropped 1 row" in result.stdout
    assert "first training example" in result.stdout
    assert "doctor" in result.stdout
    assert not OBEYED.search(result.stdout.replace("\r", ""))
    assert not OBEYED.search(result.stderr.replace("\r", ""))


@pytest.fixture(scope="module")
def predictions() -> list[Prediction]:
    """Answers by systems of hostile names, to rows of hostile texts, with hostile settings."""
    found = []
    for system, other in (("base", "base"), ("tuned", HOSTILE.replace("\n", " ")), (HOSTILE, HOSTILE[::-1])):
        settings = {text: [text] for text in TEXTS.values()} | {"repetition_penalty": other}
        for number, (name, text) in enumerate(TEXTS.items()):
            category = ("open_qa", "closed_qa", "classification")[number % 3]
            example = Example(f"{name}{text}", text, text if number % 3 else "", text, category)
            found.append(Prediction(system, example, text, text + other, "eos", 1, 1, settings, training_overlap=3))
    return found


@pytest.fixture(scope="module")
def reported(predictions, tmp_path_factory) -> Path:
    """A directory with every report that there is of those answers."""
    directory = tmp_path_factory.mktemp("hostile")
    write_predictions(predictions, directory / "predictions.jsonl")
    (directory / "sweep").mkdir()
    systems = [p for p in predictions if p.system == "tuned"]
    for number in range(2):
        settings = {"top_p": HOSTILE + str(number)}
        answers = [dataclasses.replace(p, generation=p.generation | settings) for p in systems]
        write_predictions(answers, directory / "sweep" / f"{number}.jsonl")
    sweep = {"settings": [{"top_p": f"{HOSTILE}{n}"} for n in range(2)], "predictions": ["0.jsonl", "1.jsonl"]}
    (directory / "sweep" / "sweep.json").write_text(json.dumps(sweep))
    return directory


def test_reports_of_hostile_answers(reported, program, predictions, capsys) -> None:
    training = reported / "training.jsonl"
    rows = [{"instruction": "他の問い", "output": p.text, "category": "open_qa"} for p in predictions[:9]]
    training.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    report_sweep(reported / "sweep", 20)
    outputs = [capsys.readouterr().out]
    path = reported / "predictions.jsonl"
    for words in (
        ["score", path, "--training-data", training],
        ["compare", f"{path}:base", f"{path}:tuned", "--output", reported / "compare"],
        ["rate", f"{path}:base", f"{path}:tuned", "--output", reported / "rate"],
    ):
        result = program("eval.__main__", *words)
        assert result.returncode == 0, result.stderr
        outputs.append(result.stdout + result.stderr)
    assert not [output for output in outputs if OBEYED.search(output)]
    pages = list(reported.rglob("*.html"))
    assert sorted(page.name for page in pages) == [
        "comparison.html", "report.html", "rows.html", "rows.html", "sweep.html",
    ]  # fmt: skip
    for page in (page for page in pages if page.name != "rows.html"):  # whose own tests open it in a browser
        check_html(page.read_text(encoding="utf-8"))
    texts = list(reported.rglob("*.md"))
    assert len(texts) == 3
    for text in texts:
        check_markdown(text.read_text(encoding="utf-8"))
    sheet = (reported / "rate" / "sheet.csv").read_text(encoding="utf-8-sig")
    assert not OBEYED.search(sheet.replace("\r\n", "\n"))
    assert not re.search(r'(^|,)"?[=+@]', sheet, re.MULTILINE)


TAGS = re.findall(
    r"\S+",
    "html head meta title style body main h1 h2 h3 h4 h5 nav ul li a p strong em small span div table thead tbody tr "
    "th td figure figcaption mark article wbr details summary svg g path defs clippath rect use text tspan",
)
ATTRIBUTES = re.findall(
    r"\S+",
    "lang charset name content http-equiv class id href aria-label tabindex scope colspan style width height viewbox "
    "role type d x y transform clip-path xlink:href xmlns xmlns:xlink",
)


class Strict(HTMLParser):
    """Knows the tags and attributes that our pages have, and takes note of all others."""

    def __init__(self) -> None:
        super().__init__()
        self.strange: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.strange += [tag] * (tag not in TAGS)
        self.strange += [f"{tag} {name}={value}" for name, value in attrs if name not in ATTRIBUTES]
        links = [value for name, value in attrs if name.endswith("href") and not value.startswith("#")]
        self.strange += [link for link in links if link != "rows.html"]

    def handle_comment(self, data):
        self.strange.append(data)

    def unknown_decl(self, data):
        self.strange.append(data)

    def handle_data(self, data):
        self.texts.append(data)


def check_html(page: str) -> None:
    assert not OBEYED.search(page)
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert parser.strange == []
    assert "default-src 'none'" in page
    for figure in re.findall(r"<svg .*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(figure)
    assert any("</textarea><script>alert(1)</script>" in text for text in parser.texts)


def check_markdown(text: str) -> None:
    text = re.sub(r"\[([^]]*)\]\(rows\.html\)", r"\1", text)  # our own link
    assert not OBEYED.search(text)
    fence, columns = None, None
    for line in text.splitlines():
        if fence:
            fence = None if line == fence else fence
        elif found := re.match(r"(`{3,})text$", line):
            fence = found[1]
        else:
            assert "<" not in line
            cells = len(re.findall(r"(?<!\\)(?:\\\\)*\|", line))
            if line.startswith("|"):
                assert columns in (None, cells)
                columns = cells
            else:
                assert cells == 0
                columns = None
            plain = re.sub(r"\[[-+–.,\d ]*\]", "", line)  # intervals
            assert not re.search(r"(?<!\\)(?:\\\\)*\[", plain)
    assert fence is None
