"""Packed rows are exact: the logits, loss and gradient of separate rows, for all architectures, on any processes."""

import copy
import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPTJConfig,
    GPTNeoXConfig,
    GPTNeoXJapaneseConfig,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
)
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from sft.model.attention import cpu
from sft.model.attention.documents import packing_obstacle, use_packed_attention
from sft.model.attention.shared_prefix import documents_of
from sft.model.families import FAMILIES
from sft.model.loss import add_token_nll
from sft.plan.prepare import optimizer_steps
from sft.training.steps import StepCollator, StepSampler, packed, padded

CPU = torch.device("cpu")
# Weights large enough that attention is sharp and a leak shows; the window is shorter than most documents.
SIZE = {
    "vocab_size": 300, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 256, "initializer_range": 0.2, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1,
}  # fmt: skip
CONFIGS = {
    "gpt_neox": GPTNeoXConfig(**SIZE, use_parallel_residual=False, rotary_pct=1.0),
    "llama": LlamaConfig(**SIZE, num_key_value_heads=2),
    "qwen2": Qwen2Config(**SIZE, num_key_value_heads=2),
    "qwen3": Qwen3Config(**SIZE, num_key_value_heads=2, head_dim=32, tie_word_embeddings=True),
    "gemma3_text": Gemma3TextConfig(
        **SIZE, num_key_value_heads=1, head_dim=32, sliding_window=16, query_pre_attn_scalar=32,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
}  # fmt: skip
LENGTHS = [60, 1, 17, 40, 3, 16]


def build(architecture, attention="sdpa"):
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIGS[architecture])  # a model keeps the one it is given, and tests change it
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def documents():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(2, 300, (length,), generator=generator).tolist() for length in LENGTHS]


OPENING, LONGER = [5, 9, 7, 9, 5, 8, 20, 30, 11], [5, 9, 7, 9, 5, 40, 41, 42, 43, 44, 45, 46]


def rows_that_begin_alike():
    """Two openings that begin alike themselves, a row of its own, and the same row twice."""
    one, two, three, four, five, six = documents()
    return [OPENING + one, LONGER + three, four, OPENING + two, LONGER + five, OPENING + six, LONGER + three]


def sharing_batch(rows, supervised=slice(None)):
    collate = StepCollator(DataCollatorForLanguageModeling(pad_token_id=1, padding_free=True), 1, 8, True)
    labels = [
        [token if n in range(*supervised.indices(len(row))) else -100 for n, token in enumerate(row)] for row in rows
    ]
    columns = [{"index": str(n), "input_ids": row, "labels": labels[n]} for n, row in enumerate(rows)]
    (batch,) = collate([columns])["micro_batches"]
    return batch


def packed_batch(rows):
    collate = DataCollatorForLanguageModeling(pad_token_id=1, padding_free=True)
    return collate([{"input_ids": row, "labels": row} for row in rows])


def packed_logits(model, batch, rows):
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits[0].split(list(map(len, rows)))


@pytest.mark.parametrize("attention", ["dense", "documents"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_packed_logits_are_those_of_separate_rows(architecture, attention):
    rows = documents()
    reference = build(architecture, "eager")
    with torch.no_grad():
        expected = [reference(input_ids=torch.tensor([row])).logits[0] for row in rows]
    model = build(architecture)
    use_packed_attention(model, attention, CPU)
    for ours, theirs in zip(packed_logits(model, packed_batch(rows), rows), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("attention", ["dense", "documents"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_document_does_not_depend_on_its_neighbours_and_the_proof_would_notice(architecture, attention):
    rows = documents()
    model = build(architecture)
    use_packed_attention(model, attention, CPU)
    before = packed_logits(model, packed_batch(rows), rows)
    others = [[(token + 7) % 298 + 2 for token in row] if n != 3 else row for n, row in enumerate(rows)]
    after = packed_logits(model, packed_batch(others), rows)
    assert torch.equal(before[3], after[3])
    assert not torch.equal(before[2], after[2])
    # Without the borders, the same batch is far from exact: the tests above cannot pass by luck.
    leaking = packed_batch(rows) | {"attention_mask": torch.ones(1, sum(LENGTHS), dtype=torch.long)}
    difference = max(
        float((a - b).abs().max()) for a, b in zip(packed_logits(model, leaking, rows), before, strict=True)
    )
    assert difference > 0.1


def nll_of_rows(model, rows, supervised):
    """(tokens,) −ln p of every row's supervised tokens, each row alone."""
    found = []
    for row in rows:
        logits = model(input_ids=torch.tensor([row])).logits[0, :-1].log_softmax(-1)
        nll = -logits.gather(1, torch.tensor(row[1:])[:, None])[:, 0]
        found.append(nll[max(0, supervised.start - 1) :])
    return torch.cat(found)


@pytest.mark.parametrize("supervised", [slice(0, None), slice(10, None)], ids=["all", "answers"])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_rows_that_share_a_beginning_have_the_loss_and_the_gradient_of_separate_rows(architecture, supervised):
    rows = rows_that_begin_alike()
    reference, model = build(architecture, "eager"), build(architecture)
    use_packed_attention(model, "documents", CPU)
    add_token_nll(model)
    expected = nll_of_rows(reference, rows, supervised)
    expected.sum().backward()
    batch = sharing_batch(rows, supervised)
    assert batch["input_ids"].shape[1] < sum(map(len, rows)) - 30
    counts = batch["label_copies"]
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "label_copies")}
    nll = model(**inputs, nll_labels=batch["labels"], use_cache=False)
    assert counts.sum() == len(expected)
    torch.testing.assert_close((nll * counts).sum(), expected.sum(), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        nll.repeat_interleave(counts).sort().values, expected.sort().values, rtol=1e-5, atol=1e-5
    )
    (nll * counts).sum().backward()
    for (name, ours), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        difference = (ours.grad - theirs.grad).norm() / theirs.grad.norm()
        assert difference < 1e-5, name


@pytest.mark.parametrize("architecture", CONFIGS)
def test_a_row_that_shares_its_beginning_does_not_depend_on_the_others(architecture):
    rows = rows_that_begin_alike()
    model = build(architecture)
    use_packed_attention(model, "documents", CPU)

    def last_row(rows):
        batch = sharing_batch(rows)
        inputs = {name: value for name, value in batch.items() if name not in ("labels", "label_copies")}
        ends = sum(own for _, _, own in batch["shared_prefixes"][: len(rows) + 2])  # of two openings and the rows
        with torch.no_grad():
            return model(**inputs, use_cache=False).logits[0, ends - len(rows[-1]) + len(LONGER) : ends]

    rows[-1] = [*LONGER, 77, 78, 79]
    others = [row[:12] + [(token + 7) % 298 + 2 for token in row[12:]] for row in rows[:-1]]
    assert torch.equal(last_row(rows), last_row([*others, rows[-1]]))
    assert not torch.equal(last_row(rows), last_row([*rows[:-1], [*LONGER, 80, 78, 79]]))


beginnings = st.lists(
    st.tuples(
        st.sampled_from([[], [1], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 6, 6], [7] * 600]), st.lists(st.integers(0, 2))
    ),
    max_size=12,
)


def test_rows_that_share_ever_more_are_divided_all_the_same():
    rows = [[(1, 1)] * length + [(2, 2)] for length in range(1, 800)]
    documents = documents_of(rows)
    assert sum(len(document.tokens) for document in documents) < 0.7 * sum(map(len, rows))


@given(beginnings)
def test_documents_with_their_prefixes_are_the_rows(parts):
    rows = [[(token, -100 if token in own else token) for token in [*opening, *own, 9]] for opening, own in parts]
    documents = documents_of(rows)
    prefixes = documents[: len(documents) - len(rows)]
    whole = []
    for document in documents[len(prefixes) :]:
        taken = [] if document.prefix is None else prefixes[document.prefix].tokens[: document.taken]
        assert len(taken) == document.taken
        whole.append(taken + document.tokens)
        # The last common token stands in both, and its label counts in the prefix alone.
        assert document.prefix is None or prefixes[document.prefix].tokens[document.taken :] == document.tokens[:1]
    assert whole == rows
    for number, prefix in enumerate(prefixes):
        assert prefix.copies == sum(document.prefix == number for document in documents) > 1
    assert sum(len(document.tokens) for document in documents) <= sum(map(len, rows))
    alike = sum(len(row) > 3 and row[:3] == [(1, 1), (2, 2), (3, 3)] for row in rows)
    saved = sum(map(len, rows)) - sum(len(document.tokens) for document in documents)
    assert saved >= (alike - 1) * 2 - 1  # what one document for these beginnings saves by itself


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)], ids=str)
@pytest.mark.parametrize(("tokens", "window"), [(19, None), (64, None), (300, None), (19, 5), (300, 40), (300, 300)])
def test_attention_in_blocks_is_pytorchs_and_so_is_its_gradient(heads, tokens, window, monkeypatch):
    monkeypatch.setattr(cpu, "BLOCK", 64)
    torch.manual_seed(0)
    shapes = [(count, tokens, 8) for count in (heads[0], heads[1], heads[1])]
    states = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    mask = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    if window:
        mask = mask.triu(1 - window)

    def theirs(q, k, v):
        attended = torch.nn.functional.scaled_dot_product_attention(
            q[None], k[None], v[None], mask, scale=0.3, enable_gqa=True
        )
        return attended[0].transpose(0, 1)

    ours = cpu.attend(*states, 0.3, window)
    torch.testing.assert_close(ours, theirs(*states), rtol=1e-12, atol=1e-12)
    direction = torch.randn_like(ours)
    for mine, reference in zip(
        torch.autograd.grad(ours, states, direction),
        torch.autograd.grad(theirs(*states), states, direction),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tokens", [1, 33, 385])
@pytest.mark.parametrize("window", [None, 1, 40])
def test_attention_in_blocks_is_as_exact_as_16_bits_are(tokens, window):
    """In the layout that models have; a token that sees itself alone teaches queries and keys nothing."""
    torch.manual_seed(0)
    states = [torch.randn(tokens, heads, 64).bfloat16().transpose(0, 1).requires_grad_() for heads in (14, 2, 2)]
    exact = [state.detach().float().requires_grad_() for state in states]
    found = [cpu.attend(*each, 0.125, window) for each in (states, exact)]
    direction = torch.randn_like(found[1])
    found = [
        (out, *torch.autograd.grad(out, each, direction.to(out.dtype)))
        for out, each in zip(found, (states, exact), strict=True)
    ]
    for ours, reference in zip(*found, strict=True):
        assert (ours - reference).norm() < 0.006 * max(reference.norm(), direction.norm())


@pytest.mark.parametrize("architecture", CONFIGS)
def test_bf16_documents_are_as_near_to_fp32_as_pytorchs_attention_is(architecture):
    rows = documents()
    exact = build(architecture)
    use_packed_attention(exact, "documents", CPU)
    expected = torch.cat(packed_logits(exact, packed_batch(rows), rows))
    errors = {}
    for attention in ("dense", "documents"):
        model = build(architecture).bfloat16()
        use_packed_attention(model, attention, CPU)
        found = torch.cat(packed_logits(model, packed_batch(rows), rows)).float()
        errors[attention] = float((found - expected).norm() / expected.norm())
    assert 0 < errors["documents"] < 1.5 * errors["dense"]


def test_borders_that_are_missing_are_an_error_and_not_a_leak():
    model = build("llama")
    use_packed_attention(model, "documents", CPU)
    batch = packed_batch(documents())
    with pytest.raises(ValueError, match="cu_seq_lens_q does not say"):
        model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_padded_batches_and_generation_go_through_the_packed_attention_unchanged(architecture):
    plain, model = build(architecture), build(architecture)
    use_packed_attention(model, "documents", CPU)
    ids = torch.tensor([documents()[0][:30], [1] * 13 + documents()[2]])
    mask = (torch.arange(30) >= torch.tensor([[0], [13]])).long()
    with torch.no_grad():
        assert torch.equal(model(ids, attention_mask=mask).logits, plain(ids, attention_mask=mask).logits)
        assert torch.equal(model(ids[:1]).logits, plain(ids[:1]).logits)
        settings = {"max_new_tokens": 5, "do_sample": False, "attention_mask": mask}
        assert torch.equal(model.generate(ids, **settings), plain.generate(ids, **settings))


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_the_varlen_kernel_is_called_as_it_is_documented(architecture, monkeypatch):
    import torch.nn.attention.varlen as varlen

    signature = inspect.signature(varlen.varlen_attn)

    def documented(*args, **kwargs):
        """What the kernel's documentation says, as a mask of tokens × tokens; the kernel itself needs a GPU."""
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        a = call.arguments
        assert a["max_q"] == a["max_k"] == a["cu_seq_q"].diff().max()
        position = torch.arange(len(a["query"]))
        document = torch.bucketize(position, a["cu_seq_q"][1:], right=True)
        distance = position[:, None] - position[None]
        left, right = a["window_size"]
        sees = (document[:, None] == document[None]) & (distance >= -right)
        sees &= distance <= (left if left >= 0 else len(position))
        q, k, v = (a[name].transpose(0, 1) for name in ("query", "key", "value"))
        attend = torch.nn.functional.scaled_dot_product_attention
        return attend(q, k, v, sees, scale=a["scale"], enable_gqa=a["enable_gqa"]).transpose(0, 1)

    monkeypatch.setattr(varlen, "varlen_attn", documented)
    rows = documents()
    model, reference = build(architecture), build(architecture)
    model.set_attn_implementation("packed_varlen")
    batch = packed_batch(rows)
    for ours, theirs in zip(packed_logits(model, batch, rows), packed_logits(reference, batch, rows), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    use_packed_attention(reference, "documents", CPU)
    shared = sharing_batch(rows_that_begin_alike())
    inputs = {name: value for name, value in shared.items() if name not in ("labels", "label_copies")}
    with torch.no_grad():
        ours, theirs = (one(**inputs, use_cache=False).logits for one in (model, reference))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)
    with pytest.raises(ValueError, match="share prefixes"):
        reference(**inputs, attention_mask=torch.ones_like(inputs["input_ids"]), use_cache=False)


@pytest.mark.parametrize("checkpointing", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize(
    "architecture", [pytest.param(name, marks=[pytest.mark.slow] * name.startswith("qwen")) for name in CONFIGS]
)
def test_loss_and_gradient_of_a_step_are_those_of_separate_rows(architecture, checkpointing, tokenizer, tmp_path):
    from test_trainer import log_records, make_trainer

    config = type(CONFIGS[architecture])(**CONFIGS[architecture].to_dict() | {"vocab_size": len(tokenizer)})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    targets = ["query_key_value"] if architecture == "gpt_neox" else ["q_proj", "k_proj", "v_proj", "o_proj"]
    logs = {}
    for pack in (True, False):  # one row a micro-batch is a row without padding
        (tmp_path / str(pack)).mkdir()
        trainer = make_trainer(
            tmp_path / "base", tokenizer, tmp_path / str(pack), pack=pack, targets=targets,
            activation_checkpointing=checkpointing, optim="sgd", learning_rate=0.1,
        )  # fmt: skip
        batch = next(iter(trainer.get_train_dataloader()))["micro_batches"][0]
        assert ("shared_prefixes" in batch) is pack
        trainer.train()
        logs[pack] = log_records(tmp_path / str(pack))
    for ours, theirs in zip(logs[True], logs[False], strict=True):
        for name in {"loss", "grad_norm", "eval_open_loss", "eval_context_loss"} & theirs.keys():
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5), name


lengths = st.lists(st.integers(1, 50), max_size=40)


@given(lengths, st.integers(1, 4), st.integers(50, 120))
def test_bins_hold_every_row_once_within_their_capacity_and_as_many_for_each_process(lengths, processes, capacity):
    bins = packed(lengths, processes, capacity)
    assert sorted(position for members in bins for position in members) == list(range(len(lengths)))
    assert all(sum(lengths[position] for position in members) <= capacity for members in bins)
    assert len(bins) % processes == 0
    assert bins


@given(lengths, st.integers(1, 4), st.integers(1, 9))
def test_padded_micro_batches_hold_every_row_once_by_length(lengths, processes, rows):
    groups = padded(lengths, processes, rows)
    order = [lengths[position] for members in groups for position in members]
    assert order == sorted(lengths, reverse=True)
    assert all(len(members) <= rows for members in groups)
    assert len(groups) % processes == 0


def test_bins_of_real_lengths_are_full(real_rows):
    characters = [min(2000, len(line) // 2) for line in real_rows.open(encoding="utf-8")]
    for start in range(0, 12_800, 128):
        step = characters[start : start + 128]
        assert len(packed(step, 1, 4096)) <= -(-sum(step) // 4096) + 1
        tokens = [sum(step[position] for position in members) for members in packed(step, 4, 4096)]
        assert min(tokens) > 0.95 * max(tokens)


def sampler(divide=padded, **options):
    settings = {"divide": lambda lengths, n: divide(lengths, n, 50), "seed": 3, "steps_done": lambda: 0} | options
    return StepSampler([*range(10, 50), *range(50, 39, -1)], step_rows=8, **settings)


@pytest.mark.parametrize("divide", [padded, packed])
def test_processes_share_the_rows_of_a_step_without_repetition(divide):
    alone = list(sampler(divide))
    assert sorted(row for step in alone for members in step for row in members) == list(range(51))
    assert [sum(map(len, step)) for step in alone] == [8] * 6 + [3]
    shares = [list(sampler(divide, process=process, processes=4)) for process in range(4)]
    for step, *parts in zip(alone, *shares, strict=True):
        rows = [row for part in parts for members in part for row in members]
        assert sorted(rows) == sorted(row for members in step for row in members)
        assert len({len(part) for part in parts}) == 1
    assert [[]] in [part[-1] for part in shares] or divide is packed  # an empty share of the last step is a share


def test_the_order_depends_on_seed_and_steps_done_alone():
    done = 0
    ours = sampler(steps_done=lambda: done)
    first = list(ours)
    done = 6  # the epoch has 7 steps
    assert list(ours) == first
    done = 7
    assert list(ours) != first
    assert list(sampler(seed=4)) != first


def test_optimizer_steps_count_the_last_smaller_one():
    assert optimizer_steps(13_213, 128, 3) == 312
    assert optimizer_steps(16, 8, 1.5) == 3


def test_what_is_not_proved_is_not_packed():
    assert {name for name, family in FAMILIES.items() if family.packs} == set(CONFIGS)
    assert {name: why for name, config in CONFIGS.items() if (why := packing_obstacle(config))} == {}
    for config in (GPTJConfig(), GPTNeoXJapaneseConfig()):
        assert f"architecture {config.model_type} it is not proved" in packing_obstacle(config)
    scaled = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaled |= {"factor": 8.0, "rope_theta": 500000.0, "original_max_position_embeddings": 8192}
    assert packing_obstacle(LlamaConfig(rope_parameters=scaled)) is None
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert "dynamic" in packing_obstacle(LlamaConfig(rope_parameters=dynamic))


def test_packing_an_architecture_that_is_not_proved_is_an_error_only_when_asked_for(tiny_base, tmp_path, program):
    import shutil

    shutil.copytree(tiny_base, tmp_path / "gptj")
    GPTJConfig(n_layer=1).save_pretrained(tmp_path / "gptj")
    words = ["train_sft", "configs/tiny.yaml", f"model.base={tmp_path / 'gptj'}", "model.build=null", "--dry-run"]
    asked = program(*words, "training.pack=true")
    assert asked.returncode == 2
    assert "training.pack: true, but for the architecture gptj it is not proved" in asked.stderr
    assert "padded in micro-batches of at most 8 (not packed: for" in " ".join(program(*words).stdout.split())
