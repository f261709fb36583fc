"""The model card: front matter that the hub reads, licences, numbers of the evaluation, and code for the settings."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from made_up import answers
from pydantic import BaseModel

from eval.scoring.score import score
from sft.config.load import load_config
from sft.data.read import load_data
from sft.export.card.card import model_card
from sft.export.card.licences import ROWS, licence_fields, named_base, named_data
from sft.export.card.scores import evaluation_of
from sft.export.request import Request
from sft.export.source import Source
from sft.generation.settings import effective_settings
from sft.model.load import load_base
from sft.prompt.template import ALPACA_JA, TEMPLATES, PromptTemplate
from sft.run.manifest import Environment, FinishedManifest, Identity, Kept, Parent, RowCounts
from sft.system import texts
from sft.system.errors import UserError

DOLLY = "kunishou/databricks-dolly-15k-ja"
NOTHING = "0" * 64
MANIFEST = FinishedManifest(
    status="finished",
    started="2026-11-24T17:08:30+00:00",
    identity=Identity(data=NOTHING, tokenizer=NOTHING, template=NOTHING, split=NOTHING, processes=1),
    rows=RowCounts(
        train=13_000, validation=300, test=1_500, dropped=0,
        truncation={"closed_qa": {"whole": 5, "context shortened": 3, "dropped": 2}},
    ),
    steps=300,
    environment=Environment(python="3.11.7", packages={"torch": "2.13.0"}, git_commit="abc"),
    base_commit="f00d",
    part_of_more=False,
    finished="2026-11-24T17:29:04+00:00",
    seconds=1234.5,
    learned={},
    device="cuda:0",
)  # fmt: skip


def card_of(
    *overrides, kind="adapter", manifest=MANIFEST, results=None, model_id=None, base_id=None, licence=None,
    template=ALPACA_JA,
):  # fmt: skip
    config = load_config("configs/calm7b.yaml", [f"data.path={DOLLY}", *overrides])
    request = Request(Path("runs/calm7b"), merge=kind == "merged", push=model_id)
    base, data = named_base(config, manifest, base_id), named_data(config, manifest, licence)
    evaluation = evaluation_of(results) if results else None
    settings = effective_settings(config.generation)
    return model_card(Source(request, config, manifest, template, None, settings, base, data, evaluation))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kind": "merged"},
        {"manifest": None, "base_id": "a/b"},
        {"model_id": "someone/model"},
        {"licence": "cc-by-4.0"},
    ],
)
@pytest.mark.parametrize("setting", ["temperature=0", "repetition_penalty=1.0", "repetition_penalty_scope=all"])
def test_the_card_says_the_same_in_japanese(monkeypatch, options, setting):
    """Code, numbers and links are the same, and no sentence is left in English."""
    monkeypatch.setattr("sft.export.card.card.read_config", lambda path: LoraFields(r=8))
    monkeypatch.setattr("sft.export.card.card.is_part_of_more", lambda *model: True)
    english = card_of(f"generation.{setting}", **options)
    monkeypatch.setattr(texts, "_asked", "ja")
    japanese = card_of(f"generation.{setting}", **options)
    for card in (english, japanese):
        assert ModelCard(card).data.to_dict() == ModelCard(english).data.to_dict()
    blocks = [re.findall("```.*?```", card, re.DOTALL) for card in (english, japanese)]
    assert blocks[0] == blocks[1]
    text = re.sub("```.*?```|^---.*?^---|`.*?`", "", japanese, flags=re.DOTALL | re.MULTILINE)
    assert not re.search("[A-Za-z]{2,} [a-z]{2,} [a-z]{2,} ", text)
    for found in (r"\(https?://\S+?\)", r"\d+%"):
        assert set(re.findall(found, japanese)) == set(re.findall(found, english))


class LoraFields(BaseModel):
    """What an adapter says of itself."""

    r: int


def test_a_card_says_which_step_it_is_and_that_another_training_went_before():
    usual = card_of()
    assert "| optimizer steps | 300 |" in usual
    assert "earlier training" not in usual
    kept = Kept(step=100, of=160, by="context", loss=2.0)
    parent = Parent(run="a", started="2026-11-24T17:08:30+00:00", learned=NOTHING)
    card = card_of(manifest=MANIFEST.model_copy(update={"kept": kept, "parent": parent}))
    assert "| optimizer steps | 100 of 160 that were done: the one with the lowest validation loss (context) |" in card
    assert "It went on from the adapter of an earlier training" in card


def test_the_front_matter_is_what_the_hub_reads():
    front = ModelCard(card_of(model_id="someone/calm-dolly")).data.to_dict()
    assert front == {
        "language": "ja",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "base_model": "cyberagent/open-calm-7b",
        "base_model_relation": "adapter",
        "datasets": [DOLLY],
        "license": "cc-by-sa-4.0",
        "tags": ["lora", "sft", "instruction", "japanese"],
    }
    merged = ModelCard(card_of(kind="merged")).data.to_dict()
    assert (merged["library_name"], merged["base_model_relation"]) == ("transformers", "finetune")


def test_a_local_base_and_local_data_are_said_and_not_named():
    card = card_of("model.base=/home/hanako/models/base-7b", "data.path=/home/hanako/rows.jsonl")
    front = yaml.safe_load(card.split("---")[1])
    assert not {"base_model", "datasets", "license"} & front.keys()
    assert "the model `base-7b`" in card
    assert "The base model was a local directory" in card
    assert "its licence is for those who share this model to state" in card
    assert "hanako" not in card
    assert "rows.jsonl" not in card


def test_what_the_user_states_of_them_is_taken():
    local = ["model.base=/models/calm", "data.path=/rows.jsonl"]
    card = card_of(*local, base_id="cyberagent/open-calm-1b", licence="cc-by-4.0")
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == "cyberagent/open-calm-1b"
    assert "it was not compared with the hub's" in card
    assert "f00d" not in card  # the commit belongs to what was loaded
    assert "Training data: cc-by-4.0" in card


def test_a_copy_of_a_known_data_set_is_known_by_its_rows(real_rows):
    for path in ("data/sample.jsonl", str(real_rows)):
        assert load_data(path).sha256 in ROWS
    identity = MANIFEST.identity.model_copy(update={"data": load_data(str(real_rows)).sha256})
    manifest = MANIFEST.model_copy(update={"identity": identity})
    card = card_of("data.path=/copy/of/dolly.jsonl", manifest=manifest)
    assert yaml.safe_load(card.split("---")[1])["datasets"] == [DOLLY]
    assert "Share alike" in card


def test_the_samples_hash_is_the_samples():
    assert ROWS[load_data("data/sample.jsonl").sha256] == "the project's sample"


@pytest.mark.parametrize(
    ("base", "data", "expected"),
    [
        ("cc-by-sa-4.0", "cc-by-sa-3.0", {"license": "cc-by-sa-4.0"}),
        ("mit", "cc-by-sa-3.0", {"license": "cc-by-sa-3.0"}),
        ("gemma", "apache-2.0", {"license": "gemma"}),
        ("apache-2.0", "apache-2.0", {"license": "apache-2.0"}),
        ("gemma", "cc-by-sa-3.0", {"license": "other", "license_name": "gemma-and-cc-by-sa-3.0"}),
        ("llama3.1-and-gemma", "mit", {"license": "other", "license_name": "llama3.1-and-gemma"}),
        (None, "mit", {}),
        ("mit", None, {}),
    ],
)
def test_the_whole_has_a_licence_only_where_both_parts_have(base, data, expected):
    assert licence_fields(base, data) == expected


def test_a_licence_that_somebody_gives_is_read_as_text():
    card = card_of("data.path=/rows.jsonl", licence="[mine](https://x.example) <img src=x>")
    assert r"- Training data: \[mine\](https://x.example) &lt;img src=x>." in card


def test_the_code_loads_the_text_model_of_a_base_of_text_and_images(small_base):
    base = small_base("gemma-3-4b")["base"]
    recorded, unknown = (MANIFEST.model_copy(update={"part_of_more": value}) for value in (True, None))
    assert card_of(f"model.base={base}", manifest=recorded) == card_of(f"model.base={base}", manifest=unknown)
    code = card_of(f"model.base={base}", manifest=unknown).split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    beginning, _ = code.replace('"gemma-3-4b"', repr(base)).split("model = PeftModel")
    found = {}
    exec(beginning.replace("from peft import PeftModel", "").replace("tokenizer = ", "# "), found)
    ours = load_base(base, torch.device("cpu"), torch.float32)
    ids = torch.tensor([[2, 5, 6, 7]])
    assert torch.equal(found["base"].float()(ids).logits, ours(ids).logits)
    with pytest.raises(UserError, match="nothing recorded it: model google/gemma-3-4b-pt: cannot be loaded"):
        card_of("model.base=google/gemma-3-4b-pt", manifest=unknown)
    assert "get_text_config" in card_of("model.base=google/gemma-3-4b-pt", manifest=recorded)
    assert "get_text_config" not in card_of(f"model.base={base}", kind="merged")  # it was saved as a model of its own
    assert "get_text_config" not in card_of()


def test_the_evaluation_is_shown_by_category_with_intervals_and_floors():
    texts = score([*answers("base", 1), *answers("tuned", 2)], resamples=100).texts()
    results = json.loads(texts["results.json"])
    card = card_of(results=results)
    tuned = results["systems"]["tuned"]["categories"]["closed_qa"]["character_f1"]
    floors = {name: t["categories"]["closed_qa"]["character_f1"]["mean"] for name, t in results["floors"].items()}
    best = max(floors, key=floors.get)
    (row, _) = [line for line in card.splitlines() if line.startswith("| closed_qa |")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == str(tuned["n"]) == "4"
    assert cells[3] == f"{tuned['mean']:.3f} [{tuned['ci_low']:.3f}, {tuned['ci_high']:.3f}]"
    assert cells[4].startswith("+")
    assert cells[5] == f"{floors[best]:.3f} ({best})"
    for text in ("**open, all**", "**context, all**", "repetition_penalty_scope generated", "32 held-out rows"):
        assert text in card
    assert "Not evaluated." in card_of()


def test_settings_and_losses_of_the_training_are_in_it():
    card = card_of("lora.r=5", "training.learning_rate=1e-4")
    for text in (
        "| lora.r | 5 |", "| learning_rate | 0.0001 |", "| training rows | 13000 |", "load_in_8bit",
        "3 context shortened, 2 dropped", "1,234 s on cuda:0", "`f00d`", ALPACA_JA.without_input.split("{")[0][-8:-1],
    ):  # fmt: skip
        assert text in card


def test_what_the_base_says_of_decoding_is_set_aside_for_an_adapter():
    for kind in ("adapter", "merged"):
        card = card_of(kind=kind)
        assert ("base.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id" in card) == (
            kind == "adapter"
        )
        assert ("An adapter has no generation_config.json" in card) == (kind == "adapter")
        assert ("as generation_config.json says" in card) == (kind == "merged")


@pytest.mark.parametrize(("turn", "system"), [(None, None), ("{instruction}<a>{output}<b>", None), (None, "{system}")])
def test_only_of_a_template_that_takes_no_conversations_the_card_says_that_none_were_learned(turn, system):
    chat = PromptTemplate(
        "chat", "{instruction}\n\n{input}<a>", "{instruction}<a>", ("<a>", "<b>"), "<b>", turn, "<b>", system
    )
    card = card_of(template=chat)
    single = turn is None and system is None
    for claim in ("on single user messages", "on neither system messages nor", "it knows no conversation"):
        assert (claim in card) == single
    assert ("earlier turns stand in it as in the training" in card.lower()) == (turn is not None)
    assert ("system messages stand in it as in the training" in card.lower()) == (system is not None)
    assert "it knows no conversation" in card_of()


@pytest.mark.parametrize(
    ("template", "english", "japanese"),
    [
        ("alpaca-ja", r'instruction, `"\n\n### 入力:\n"`, context.', r'質問、`"\n\n### 入力:\n"`、文脈の順'),
        (
            "alpaca-ja-context-first",
            r'context, `"\n\n### 指示:\n"`, instruction.',
            r'文脈、`"\n\n### 指示:\n"`、質問の順',
        ),
    ],
)
def test_the_card_says_in_which_order_a_message_has_question_and_context(monkeypatch, template, english, japanese):
    assert english in card_of(template=TEMPLATES[template])
    monkeypatch.setattr(texts, "_asked", "ja")
    assert japanese in card_of(template=TEMPLATES[template])


@pytest.mark.parametrize(
    ("overrides", "present", "absent"),
    [
        (["generation.repetition_penalty=1.0"], "no repetition penalty", "RepetitionPenaltyLogitsProcessor("),
        (["generation.repetition_penalty=1.3"], "PenaltyLogitsProcessor(1.3, prompt_", "repetition_penalty=1.3"),
        (["generation.repetition_penalty_scope=all", "generation.repetition_penalty=1.1"], "repetition_penalty=1.1",
         "RepetitionPenaltyLogitsProcessor("),
        (["generation.temperature=0.7"], "do_sample=True", '"temperature": 0\n'),
        (["generation.temperature=0"], '"temperature": 0,', "do_sample=True"),
    ],
)  # fmt: skip
def test_the_code_decodes_as_the_run_was_configured(overrides, present, absent):
    card = card_of(*overrides)
    assert present in card
    assert absent not in card
    compile(card.split("```python\n")[1].split("```")[0], "card", "exec")
