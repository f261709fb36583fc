"""The memory estimate against what real models of three families allocate on a CPU, and advice that is true."""

import math
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPTNeoXConfig, LlamaConfig

from sft.config.load import load_config
from sft.model.load import load_base, load_skeleton
from sft.model.lora import add_lora, base_of, train_all
from sft.model.loss import add_token_nll
from sft.plan.advice import FOUR_BIT, fitting_advice, fitting_changes
from sft.plan.cards import GB, find_card
from sft.plan.memory import Layout, estimate, flops_per_token
from sft.system.errors import UserError

SMALL = {"vocab_size": 2048, "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4}
CONFIGS = {
    "gpt_neox": GPTNeoXConfig(**SMALL, intermediate_size=1024, use_parallel_residual=False, tie_word_embeddings=False),
    "llama": LlamaConfig(**SMALL, intermediate_size=688, num_key_value_heads=2),
    "gemma3": Gemma3TextConfig(
        **SMALL, intermediate_size=1024, num_key_value_heads=1, head_dim=64, sliding_window=128
    ),
}  # fmt: skip
TARGETS = {"gpt_neox": ["query_key_value"], "llama": ["q_proj", "v_proj"], "gemma3": ["q_proj", "k_proj", "o_proj"]}
CALM_7B = {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 16384, "vocab_size": 52224}


class Allocated(TorchDispatchMode):
    """Counts the bytes of all tensors alive, as operations make them and Python lets go of them."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self.alive: set[int] = set()
        self.now = self.peak = 0
        for tensor in known:
            self.count(tensor)

    def count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.alive:
            self.alive.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.gone, key, size)

    def gone(self, key: int, size: int) -> None:
        self.alive.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.count(leaf)
        return result


def measured_peak(model, layout: Layout) -> int:
    """Bytes at the peak of two optimizer steps of a real model on a CPU."""
    base = base_of(model.train())
    add_token_nll(base)
    if layout.checkpointing:
        model.enable_input_require_grads()
        base.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], foreach=False)
    ids = torch.randint(5, 2000, layout.shape)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["attention_mask"][1:, -3:] = 0  # shorter rows than the first
    if layout.form == "dense":
        inputs = {"input_ids": ids, "position_ids": torch.arange(ids.shape[1])[None] % layout.length}
    with Allocated([*model.parameters(), *model.buffers()]) as allocated:
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=layout.autocast is not None):
                nll = model(**inputs, nll_labels=ids, use_cache=False)
            nll.sum().backward()
            del nll
            optimizer.step()
            optimizer.zero_grad()
    return allocated.peak


def lora(targets: list[str]) -> dict:
    return {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": targets}  # a CPU's dropout keeps more


def without_weights(directory, config, targets: list[str], dtype=torch.bfloat16):
    config.save_pretrained(directory)
    model = load_skeleton(str(directory), dtype)
    add_lora(model, lora(targets))
    return model


def estimates():
    """Every family at every layout; in `make test` each of them once."""
    for family in CONFIGS:
        for rows, form in ((1, "padded"), (4, "padded"), (4, "dense")):
            for checkpointing in (False, True):
                quick = (form == "dense" and checkpointing == (family == "gemma3")) or (family == "llama" and rows == 1)
                yield pytest.param(family, rows, form, checkpointing, marks=[pytest.mark.slow] * (not quick))


@pytest.mark.parametrize(("family", "rows", "form", "checkpointing"), estimates())
def test_the_estimate_is_what_a_real_model_allocates(tmp_path, family, rows, form, checkpointing):
    layout = Layout(rows, 384, checkpointing, None, form)
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(CONFIGS[family], dtype=torch.bfloat16).requires_grad_(False)
    measured = measured_peak(add_lora(base, lora(TARGETS[family])), layout)
    need = estimate(without_weights(tmp_path, CONFIGS[family], TARGETS[family]), layout)
    assert need.total - need.rest == pytest.approx(measured, rel=0.10)


@pytest.mark.parametrize("quantization", [{"load_in_8bit": True}, FOUR_BIT])
def test_the_estimate_of_quantised_models_is_what_they_allocate(tmp_path, quantization):
    layout = Layout(2, 384, False, quantization)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(CONFIGS["gpt_neox"], dtype=torch.bfloat16).save_pretrained(tmp_path / "real")
    base = load_base(str(tmp_path / "real"), torch.device("cpu"), torch.bfloat16, quantization)
    measured = measured_peak(add_lora(base, lora(["query_key_value"])), layout)
    need = estimate(without_weights(tmp_path, CONFIGS["gpt_neox"], ["query_key_value"]), layout)
    assert need.total - need.rest == pytest.approx(measured, rel=0.10)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_the_estimate_of_training_all_weights_is_what_that_allocates(tmp_path, autocast):
    layout = Layout(2, 512, False, None, autocast=autocast)
    torch.manual_seed(0)
    model = train_all(AutoModelForCausalLM.from_config(CONFIGS["llama"], dtype=torch.float32))
    measured = measured_peak(model, layout)
    CONFIGS["llama"].save_pretrained(tmp_path)
    need = estimate(train_all(load_skeleton(str(tmp_path), torch.bfloat16)), layout)
    assert need.total - need.rest == pytest.approx(measured, rel=0.15)


@pytest.fixture(scope="module")
def calm_7b(tmp_path_factory):
    """open-calm-7b's shape."""
    config = GPTNeoXConfig(**CALM_7B, num_attention_heads=32, use_parallel_residual=False, tie_word_embeddings=False)
    return without_weights(tmp_path_factory.mktemp("calm"), config, ["query_key_value"])


@pytest.fixture(scope="module")
def need(calm_7b):
    """The estimate for a layout of calm_7b, each made once: advice asks for the same ones again and again."""
    known = {}

    def of(layout):
        key = repr(layout)
        if key not in known:
            known[key] = estimate(calm_7b, layout)
        return known[key]

    return of


def test_weights_and_arithmetic_of_a_7b_are_those_of_its_shape(calm_7b):
    hidden, layers, words = CALM_7B["hidden_size"], CALM_7B["num_hidden_layers"], CALM_7B["vocab_size"]
    inside, outside = 12 * hidden**2 * layers, 2 * words * hidden  # layers' matrices; embeddings and head
    for quantization, size in (({"load_in_8bit": True}, 1), (FOUR_BIT, 0.5 + 1 / 64), (None, 2)):
        need = estimate(calm_7b, Layout(1, 64, True, quantization))
        assert need.weights == pytest.approx(inside * size + outside * 2, rel=0.002)
    assert need.trained == 16 * layers * 8 * (hidden + 3 * hidden)
    assert flops_per_token(calm_7b, False) == pytest.approx(4 * (inside + words * hidden), rel=0.001)
    assert flops_per_token(calm_7b, True) == pytest.approx(6 * inside + 4 * words * hidden, rel=0.001)


def test_all_weights_trained_need_gradients_and_moments(tmp_path):
    config = CONFIGS["llama"]
    config.save_pretrained(tmp_path)
    model = load_skeleton(str(tmp_path), torch.float32).requires_grad_(True)
    need = estimate(model, Layout(1, 64, False, None))
    assert (need.weights, need.trained) == (0, 16 * model.num_parameters())
    frozen = without_weights(tmp_path, config, ["q_proj"], torch.float32)
    assert flops_per_token(model, False) == 1.5 * flops_per_token(frozen, False)


@pytest.mark.parametrize("size", ["24GB", pytest.param("8GB", marks=pytest.mark.slow)])
@pytest.mark.parametrize("file", ["calm7b", "calm7b-4bit"])
def test_advised_settings_fit_by_the_same_estimate(need, file, size):
    def layout(words):
        config = load_config(f"configs/{file}.yaml", ["training.per_device_train_batch_size=2", *words])
        training = config.training
        rows, longest = training["per_device_train_batch_size"], training["max_length"]
        return Layout(rows, longest, training["activation_checkpointing"] is True, config.quantization, "dense")

    limit = find_card(size).memory
    assert need(layout([])).total > limit * 0.9
    changes = fitting_changes(layout([]), need, limit * 0.9)
    assert changes
    for change in changes:
        assert need(layout(change.settings)).total == pytest.approx(change.need.total)
        assert change.need.total <= limit * 0.9


def test_where_nothing_fits_nothing_is_advised(need):
    layout = Layout(2, 2048, False, None)
    smallest = need(layout._replace(rows=1, length=128, checkpointing=True, quantization=FOUR_BIT))
    assert smallest.total > 3 * GB
    assert fitting_changes(layout, lambda other: smallest, 3 * GB) == []


def test_four_bits_are_advised_with_the_type_that_the_model_computes_in(calm_7b):
    layout = Layout(1, 2048, False, {"load_in_8bit": True}, "dense")
    advice = fitting_advice(calm_7b, layout, 15 * GB)
    assert "quantization.load_in_4bit=true" in advice
    assert "quantization.bnb_4bit_compute_dtype=bfloat16" in advice
    left_out = {key: value for key, value in FOUR_BIT.items() if key != "bnb_4bit_compute_dtype"}
    needs = [estimate(calm_7b, layout._replace(quantization=one)).total for one in (FOUR_BIT, left_out)]
    assert needs[0] < needs[1]  # in fp32


def test_a_shorter_limit_is_the_last_resort(need):
    layout = Layout(2, 2048, False, None)
    (change,) = fitting_changes(layout, need, 16 * GB, may_quantise=False)
    assert change.settings == [
        "training.per_device_train_batch_size=1", "training.activation_checkpointing=true", "training.max_length=1024"
    ]  # fmt: skip


def test_a_card_is_a_name_or_a_size():
    assert find_card("NVIDIA GeForce RTX 3090") == find_card("rtx3090")
    assert (find_card("24 gb").memory, find_card("24GB").tflops) == (24 * GB, None)
    assert math.isclose(find_card("A100-80GB").memory, 80 * GB)
    assert (find_card("7.5GB").name, find_card("7.5GB").memory) == ("7.5GB", 7.5 * GB)
    for wrong in ("24", "0GB", "-3GB", "7,5GB", "1.5.5GB", "A100", "RTX", ""):
        with pytest.raises(UserError, match="--card"):
            find_card(wrong)
