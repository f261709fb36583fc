"""A micro-batch asks the GPU for nothing: whatever is asked of a tensor's contents is asked on the CPU, once a batch.

Counted on a CPU, where the same code asks the same questions: operations whose result, or its shape, the CPU has to
know before it goes on. On a GPU each of them is a wait for everything that was launched before.
"""

import contextlib
from collections import Counter

import pytest
import torch
from test_packing import CONFIGS, build, packed_batch, rows_that_begin_alike, sharing_batch
from test_trainer import make_trainer
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from trl import SFTTrainer

from sft.model.attention.documents import packed_mask, use_packed_attention
from sft.training.trainer import RunTrainer

CPU = torch.device("cpu")
READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2", "unique_consecutive"}
"""PyTorch's operations that read a tensor's contents to say something, or to give their result a size."""
BY_MASK = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
"""Those that do so where they are given a mask."""
METHODS = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu}
"""What leaves PyTorch without an operation, on a CPU."""


class _Operations(TorchDispatchMode):
    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = [index for index in args[1] if index is not None] if name in BY_MASK else []
        sizes = name == "repeat_interleave" and func._overloadname == "Tensor" and not (kwargs or {}).get("output_size")
        if name in READS or sizes or any(index.dtype in (torch.bool, torch.uint8) for index in masks):
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in METHODS:
            self.waits[func.__name__] += 1
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def counted():
    """Waits within it, by name."""
    waits = Counter()
    with _Methods(waits), _Operations(waits):
        yield waits


def test_what_waits_is_counted():
    tensor = torch.arange(6.0)
    asked = [
        lambda: tensor.sum().item(), lambda: bool(tensor.any()), lambda: tensor[tensor > 2], lambda: tensor.tolist(),
        lambda: tensor.nonzero(), lambda: tensor.masked_fill_(tensor > 4, 0).__setitem__(tensor > 3, torch.ones(1)),
        lambda: torch.ones(2).repeat_interleave(torch.tensor([1, 2])),
    ]  # fmt: skip
    for ask in asked:
        with counted() as waits:
            ask()
        assert waits.total() == 1, waits
    with counted() as waits:
        tensor[torch.tensor([1, 2])], tensor.index_select(0, torch.tensor([1])), tensor.masked_fill(tensor > 2, 0)
    assert not waits


@pytest.mark.parametrize("quantization", [None, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}], ids=str)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "checkpointed"])
@pytest.mark.parametrize("attention", ["dense", "documents"])
def test_a_packed_micro_batch_waits_for_nothing(
    tiny_base, tokenizer, tmp_path, monkeypatch, attention, checkpointing, quantization
):
    found = []
    whole = SFTTrainer.training_step

    def watched(self, model, batch, *args):  # forward and backward of one micro-batch
        with counted() as waits:
            loss = whole(self, model, batch, *args)
        found.append((waits, len(batch["document_lengths"]), "shared_prefixes" in batch))
        return loss

    monkeypatch.setattr(SFTTrainer, "training_step", watched)
    trainer = make_trainer(
        tiny_base, tokenizer, tmp_path, pack=True, packed_attention=attention, quantization=quantization,
        activation_checkpointing=checkpointing, train_on_inputs=False, eval_strategy="no", max_steps=1,
        per_device_train_batch_size=4,
    )  # fmt: skip
    trainer.train()
    assert found
    for waits, documents, shared in found:
        assert documents > 1
        assert shared is (attention == "documents")
        assert not waits


def test_validation_waits_once_a_group(tiny_base, tokenizer, tmp_path, monkeypatch):
    trainer = make_trainer(tiny_base, tokenizer, tmp_path, pack=True)
    micro_batches = []
    nll = RunTrainer._nll

    def watched(self, model, batch):
        with counted() as waits:
            result = nll(self, model, batch)
        micro_batches.append(waits)
        return result

    monkeypatch.setattr(RunTrainer, "_nll", watched)
    trainer.evaluate()
    assert len(micro_batches) == 2
    assert not any(micro_batches)


@pytest.mark.parametrize("attention", ["dense", "documents"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_the_mask_that_is_known_beforehand_changes_no_number(architecture, attention):
    rows = rows_that_begin_alike()
    shared = sharing_batch(rows)
    batches = [packed_batch(rows)]
    if attention == "documents":
        batches.append({name: shared[name] for name in shared.keys() - {"labels", "label_copies", "nll_positions"}})
    model = build(architecture)
    use_packed_attention(model, attention, CPU)
    for batch in batches:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        mask = packed_mask(model.config, batch["seq_idx"])
        with torch.no_grad():
            with counted() as before:
                asked = model(**inputs, use_cache=False).logits
            with counted() as waits:
                known = model(**inputs, attention_mask=mask, use_cache=False).logits
        assert torch.equal(known, asked)
        assert before.total() > waits.total()
        # Without lengths, the borders are asked in each layer.
        assert waits.total() == (0 if "document_lengths" in batch or attention == "dense" else 3)
