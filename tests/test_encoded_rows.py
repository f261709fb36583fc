"""Encoded rows: the same in batches as one by one, kept under a key of all that made them, and hardly any memory."""

from collections import Counter

import pyarrow
import pytest
from datasets import Dataset

from sft.prompt import encoded_rows
from sft.prompt.encode import encode_answer, encode_prompt, encode_texts
from sft.prompt.encoded_rows import IGNORE_INDEX, largest_id, row_lengths, token_counts
from sft.prompt.row_encoder import RowEncoder
from sft.prompt.template import ALPACA_EN, ALPACA_JA, FormattingFunction, PromptTemplate
from sft.system.errors import UserError

CHAT = PromptTemplate(
    "chat",
    "<|endoftext|>user\n{instruction}\n\n{input}<|endoftext|>assistant\n",
    "<|endoftext|>user\n{instruction}<|endoftext|>assistant\n",
    special_tokens=("<|endoftext|>",),
    end="<|endoftext|>",
)
TEXTS = [
    "首都は?",
    "a<|endoftext|>b",
    "<|endoftext|>",
    "\n改行\n",
    " 空白 ",
    "😀鱻",
    "<|padding|>と<|endoftext|>",
    "長い" * 90,
]
ROWS = [
    {"index": str(n), "instruction": TEXTS[n % 8], "input": TEXTS[n % 5] if n % 3 else "", "output": TEXTS[n % 7],
     "category": "closed_qa" if n % 3 else "open_qa"}
    for n in range(60)
]  # fmt: skip


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "encoded-rows"


def encode(tokenizer, rows=ROWS, template=ALPACA_JA, max_length=128, **options):
    return RowEncoder(tokenizer, FormattingFunction(template), max_length, **options).encode(Dataset.from_list(rows))


@pytest.mark.parametrize("template", [ALPACA_JA, CHAT], ids=["text", "chat"])
@pytest.mark.parametrize("options", [{}, {"truncation": "end"}, {"train_on_inputs": False}], ids=str)
def test_a_batch_of_rows_is_encoded_as_each_row_alone(cache, tokenizer, template, options):
    encoded, fates = encode(tokenizer, template=template, **options)
    encoder = RowEncoder(tokenizer, FormattingFunction(template), 128, **options)
    alone = [encoder.encode_row(row) for row in ROWS]
    fitting = [(row["category"], e) for row, e in zip(ROWS, alone, strict=True) if e.fate != "dropped"]
    assert 0 < len(fitting) <= len(ROWS)
    assert encoded["input_ids"] == [e.input_ids for _, e in fitting]
    assert encoded["labels"] == [e.labels for _, e in fitting]
    assert encoded["category"] == [category for category, _ in fitting]
    assert fates == Counter((row["category"], e.fate) for row, e in zip(ROWS, alone, strict=True))
    for _, e in fitting:  # and as prompt and answer by themselves, which answering does
        assert e.labels[1:] == [label if label == IGNORE_INDEX else token for token, label in
                                zip(e.input_ids[1:], e.labels[1:], strict=True)]  # fmt: skip


def test_texts_in_a_batch_do_not_touch_each_other(tokenizer):
    assert encode_texts(tokenizer, TEXTS) == [encode_texts(tokenizer, [text])[0] for text in TEXTS]
    end = tokenizer.eos_token_id
    for text in TEXTS:
        assert end not in encode_answer(tokenizer, text)
        assert end not in encode_prompt(tokenizer, text)


def test_counts_of_encoded_rows_are_those_of_their_lists(cache, tokenizer):
    encoded = encode(tokenizer, ROWS * 40, max_length=4096, train_on_inputs=False).rows  # several batches
    assert list(row_lengths(encoded)) == [len(ids) for ids in encoded["input_ids"]]
    assert largest_id(encoded) == max(map(max, encoded["input_ids"]))
    supervised = sum(label != IGNORE_INDEX for labels in encoded["labels"] for label in labels[1:])
    assert token_counts(encoded) == (sum(map(len, encoded["input_ids"])), supervised)


def test_rows_that_were_encoded_before_are_not_encoded_again(cache, tokenizer, monkeypatch):
    encoded, fates = encode(tokenizer)
    monkeypatch.setattr(RowEncoder, "encode_rows", lambda *_: pytest.fail("encoded again"))
    again = encode(tokenizer)
    assert again.rows.to_dict() == encoded.to_dict()
    assert again.fates == fates


def test_whatever_changes_the_tokens_makes_them_anew(cache, tokenizer, tiny_base, monkeypatch):
    from tokenizers import normalizers
    from transformers import AutoTokenizer

    encode(tokenizer)
    count = len(list(cache.glob("*.arrow")))
    other = AutoTokenizer.from_pretrained(tiny_base)
    other.backend_tokenizer.normalizer = normalizers.NFKC()  # the same vocabulary
    changes = [
        lambda: encode(tokenizer, max_length=127),
        lambda: encode(tokenizer, truncation="end"),
        lambda: encode(tokenizer, train_on_inputs=False),
        lambda: encode(other),
        lambda: encode(tokenizer, template=ALPACA_EN),
        lambda: encode(tokenizer, ROWS[:-1]),
    ]
    for change in changes:
        change()
        assert len(list(cache.glob("*.arrow"))) == (count := count + 1)
    monkeypatch.setattr("tokenizers.__version__", "another")
    encode(tokenizer)
    assert len(list(cache.glob("*.arrow"))) == count + 1


@pytest.mark.parametrize("left", ["nothing", "rows without their notes"])
def test_encoding_that_was_interrupted_begins_again(cache, tokenizer, monkeypatch, left):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        where, what = (RowEncoder, "encode_rows") if left == "nothing" else (encoded_rows, "write_whole")
        patch.setattr(where, what, interrupt)
        with pytest.raises(KeyboardInterrupt):
            encode(tokenizer)
    assert not list(cache.glob(".*"))
    assert len(encode(tokenizer).rows) > 0


@pytest.mark.parametrize("damage", ["cut at a batch's end", "cut in a batch", "a bit", "no notes", "notes of nothing"])
def test_rows_that_are_not_as_they_were_written_are_encoded_again(cache, tokenizer, monkeypatch, capsys, damage):
    monkeypatch.setattr("sft.prompt.row_encoder.BATCH", 20)
    whole = encode(tokenizer).rows.to_dict()
    (rows,) = cache.glob("*.arrow")
    content = rows.read_bytes()
    if damage == "no notes":
        rows.with_suffix(".json").unlink()
    elif damage == "notes of nothing":
        rows.with_suffix(".json").write_text("[]")
    elif damage == "a bit":
        rows.write_bytes(content[:-100] + bytes([content[-100] ^ 1]) + content[-99:])
    elif damage == "cut in a batch":
        rows.write_bytes(content[: len(content) // 2])
    else:
        with pyarrow.OSFile(str(rows)) as file, pyarrow.ipc.open_stream(file) as reader:
            first = reader.read_next_batch()
        with pyarrow.OSFile(str(rows), "wb") as file, pyarrow.ipc.new_stream(file, first.schema) as writer:
            writer.write_batch(first)
    assert encode(tokenizer).rows.to_dict() == whole
    said = capsys.readouterr().err
    assert (f"{rows} is damaged, and is made again" in said) is ("no" not in damage)
    assert len(list(cache.iterdir())) == 2


def test_rows_of_a_tokenizer_that_is_code_are_not_kept(cache, tokenizer, monkeypatch):
    monkeypatch.setattr("sft.prompt.row_encoder.is_all_data", lambda tokenizer: False)
    rows, fates = encode(tokenizer)
    assert not cache.exists()
    monkeypatch.undo()
    assert encode(tokenizer).rows.to_dict() == rows.to_dict()
    assert fates.total() == len(ROWS)


def test_rows_of_a_formatting_function_that_is_code_are_not_kept_nor_taken_for_others(cache, tokenizer):
    class Polite(FormattingFunction):
        def __call__(self, row):
            return super().__call__(row) | {"completion": f"{row['output']}。"}

    usual = encode(tokenizer)
    polite = RowEncoder(tokenizer, Polite(ALPACA_JA), 128).encode(Dataset.from_list(ROWS))
    assert len(list(cache.glob("*.arrow"))) == 1
    assert polite.rows["labels"][0] != usual.rows["labels"][0]


def test_a_cache_that_cannot_be_written_to_is_named(tokenizer, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "file")
    with pytest.raises(UserError, match="encoded rows cannot be kept there: Not a directory; set HF_DATASETS_CACHE"):
        encode(tokenizer)
