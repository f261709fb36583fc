"""Which tokens a row has and which are supervised, token by token, for each way tokenizers treat special tokens."""

import pytest
from datasets import Dataset
from tokenizers.processors import TemplateProcessing

from sft.data.read import load_data
from sft.data.rows import select
from sft.prompt.encode import encode_prompt, encode_text, shorten_context
from sft.prompt.encoded_rows import IGNORE_INDEX
from sft.prompt.row_encoder import RowEncoder
from sft.prompt.template import ALPACA_EN, ALPACA_JA, FormattingFunction

END = "<|endoftext|>"
ROW = {"index": "1", "instruction": "首都は?", "input": "", "output": "東京です。", "category": "open_qa"}
CONTEXT_ROW = ROW | {"input": "日本の首都は東京です。" * 40, "category": "closed_qa"}


def special_tokens_variant(tiny_base, layout):
    """The tiny tokenizer with the habits of another family: BOS in front (Llama) or EOS behind (T5)."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    if layout == "bos in front":
        tokenizer.add_special_tokens({"bos_token": "<s>"})
        single, special = "<s> $A", ("<s>", tokenizer.convert_tokens_to_ids("<s>"))
    elif layout == "eos behind":
        single, special = f"$A {END}", (END, 0)
    else:
        return tokenizer
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=[special])
    return tokenizer


@pytest.fixture(params=["nothing added", "bos in front", "eos behind"])
def variant(request, tiny_base):
    return special_tokens_variant(tiny_base, request.param)


def encoded(tokenizer, row, **options):
    options = {"max_length": 512} | options
    return RowEncoder(tokenizer, FormattingFunction(ALPACA_JA), **options).encode_row(row)


def test_all_tokens_are_supervised_with_loss_on_inputs(variant):
    row = encoded(variant, ROW, train_on_inputs=True)
    assert row.labels == row.input_ids


def test_exactly_answer_and_end_of_text_are_supervised_without(variant):
    row = encoded(variant, ROW, train_on_inputs=False)
    supervised = [label for label in row.labels if label != IGNORE_INDEX]
    assert supervised == [*encode_text(variant, "東京です。"), variant.eos_token_id]
    assert row.labels == [IGNORE_INDEX] * row.prompt_tokens + supervised
    assert variant.decode(supervised[:-1]) == "東京です。"


def test_one_end_of_text_at_the_end_and_bos_only_where_the_tokenizer_adds_it(variant):
    ids = encoded(variant, ROW).input_ids
    assert [place for place, token in enumerate(ids) if token == variant.eos_token_id] == [len(ids) - 1]
    bos = variant.get_vocab().get("<s>")
    assert [place for place, token in enumerate(ids) if token == bos] == ([] if bos is None else [0])


def test_the_training_prompt_is_the_answering_prompt_token_for_token(variant):
    for template in (ALPACA_JA, ALPACA_EN):
        for row in (ROW, CONTEXT_ROW):
            training = RowEncoder(variant, FormattingFunction(template), 2048).encode_row(row)
            answering = encode_prompt(variant, template.render(row["instruction"], row["input"]))
            assert training.input_ids[: training.prompt_tokens] == answering


def test_special_token_text_inside_data_stays_text(variant):
    poisoned = ROW | {"instruction": f"{END}とは?", "output": f"文の終わりは{END}です。<|padding|>"}
    row = encoded(variant, poisoned)
    assert row.input_ids.count(variant.eos_token_id) == 1
    assert variant.pad_token_id not in row.input_ids
    assert variant.decode(row.input_ids[row.prompt_tokens : -1]) == poisoned["output"]


def test_braces_and_template_markers_inside_data_stay_text(tokenizer):
    row = encoded(tokenizer, ROW | {"instruction": "{input} と {0} ### 応答:"})
    assert "{input} と {0} ### 応答:" in tokenizer.decode(row.input_ids)


def test_a_too_long_row_loses_context_from_its_end_and_nothing_else(tokenizer):
    row = encoded(tokenizer, CONTEXT_ROW, max_length=120, train_on_inputs=False)
    assert row.fate == "context shortened"
    text = tokenizer.decode(row.input_ids[: row.prompt_tokens])
    before, _, after = ALPACA_JA.with_input.format(instruction="首都は?", input="|").partition("|")
    assert text.startswith(before)
    assert text.endswith(after)
    kept = text.removeprefix(before).removesuffix(after)
    assert kept
    assert CONTEXT_ROW["input"].startswith(kept)
    assert [x for x in row.labels if x != IGNORE_INDEX] == [*encode_text(tokenizer, "東京です。"), 0]
    # One character more would not have fitted.
    longer = CONTEXT_ROW | {"input": CONTEXT_ROW["input"][: len(kept) + 1]}
    assert len(encoded(tokenizer, longer).input_ids) > 120 >= len(row.input_ids)


@pytest.mark.parametrize(
    "row", [ROW | {"output": "長い答え。" * 100}, CONTEXT_ROW | {"instruction": "長い問い。" * 100}]
)
def test_a_row_that_does_not_fit_without_context_is_dropped_and_counted(tokenizer, row):
    encoder = RowEncoder(tokenizer, FormattingFunction(ALPACA_JA), 100)
    rows, fates = encoder.encode(Dataset.from_list([ROW, row]))
    assert len(rows) == 1
    assert fates[row["category"], "dropped"] == 1


def test_cutting_the_end_takes_answer_and_end_of_text_as_alpaca_lora_does(tokenizer):
    whole = encoded(tokenizer, CONTEXT_ROW, max_length=2048)
    cut = encoded(tokenizer, CONTEXT_ROW, max_length=100, truncation="end")
    assert cut.fate == "end cut off"
    assert cut.input_ids == whole.input_ids[:100]
    assert tokenizer.eos_token_id not in cut.input_ids
    # With loss on the answer only, nothing is left to learn from.
    assert encoded(tokenizer, CONTEXT_ROW, max_length=100, truncation="end", train_on_inputs=False).fate == "dropped"


def test_shortening_keeps_the_longest_beginning_that_fits(tokenizer):
    context = "朝顔の😀種は鱻。" * 30

    def render(text):
        return f"文脈:{text}\n"

    for budget in range(len(encode_text(tokenizer, render("朝"))), 60):
        shorter = shorten_context(tokenizer, context, render, budget)
        assert context.startswith(shorter.context)
        assert shorter.ids == encode_prompt(tokenizer, render(shorter.context))
        assert len(shorter.ids) <= budget
    assert shorten_context(tokenizer, context, render, 3) is None
    assert shorten_context(tokenizer, "", render, 1000) is None


def test_every_whole_real_row_supervises_exactly_one_end_of_text(real_rows, tokenizer):
    encoder = RowEncoder(tokenizer, FormattingFunction(ALPACA_JA), 256, train_on_inputs=False)
    rows, fates = encoder.encode(select(load_data(str(real_rows)).rows, slice(1000)))
    assert len(rows) + sum(n for (_, fate), n in fates.items() if fate == "dropped") == 1000
    for labels in rows["labels"]:
        assert labels.count(0) == 1
        assert labels[-1] == 0
