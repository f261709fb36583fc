"""The chunked loss against PyTorch's own cross-entropy: values, gradients, and what counts as supervised."""

import pytest
import torch
from torch.nn.functional import cross_entropy, linear
from transformers import AutoModelForCausalLM

from sft.model.loss import CHUNK_TOKENS, add_token_nll, linear_cross_entropy, reference_nll
from sft.prompt.encoded_rows import IGNORE_INDEX


@pytest.mark.parametrize("tokens", [1, CHUNK_TOKENS, 2 * CHUNK_TOKENS + 3])
@pytest.mark.parametrize("with_bias", [False, True])
def test_values_and_gradients_are_those_of_plain_cross_entropy(tokens, with_bias):
    torch.manual_seed(0)
    hidden = torch.randn(tokens, 32, dtype=torch.float64).float().requires_grad_()
    weight, targets = torch.randn(300, 32), torch.randint(0, 300, (tokens,))
    bias = torch.randn(300) if with_bias else None
    upstream = torch.rand(tokens)
    (linear_cross_entropy(hidden, weight, bias, targets) * upstream).sum().backward()
    ours, hidden.grad = hidden.grad, None
    expected = cross_entropy(linear(hidden, weight, bias), targets, reduction="none")
    (expected * upstream).sum().backward()
    torch.testing.assert_close(linear_cross_entropy(hidden, weight, bias, targets), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, hidden.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_gradient_of_a_token_that_is_all_but_certain_survives_16_bits(dtype):
    torch.manual_seed(0)
    weight, targets = torch.randn(300, 64), torch.randint(0, 300, (40,))
    hidden = (0.2 * weight[targets] + 0.02 * torch.randn(40, 64)).to(dtype).requires_grad_()
    weight = weight.to(dtype)
    nll = linear_cross_entropy(hidden, weight, None, targets)
    nll.sum().backward()
    exact = hidden.detach().float().requires_grad_()
    expected = cross_entropy(linear(exact, weight.float()), targets, reduction="none")
    expected.sum().backward()
    certain = expected < 0.2  # p above 0.8, and most of them far above
    assert certain.sum() > 10
    assert expected[certain].min() < 0.01
    errors = (hidden.grad.float() - exact.grad).norm(dim=1) / exact.grad.norm(dim=1)
    assert errors[certain].max() < 0.1


@pytest.mark.parametrize("with_bias", [False, True])
def test_a_head_that_is_trained_gets_its_gradient(with_bias):
    torch.manual_seed(0)
    tokens = CHUNK_TOKENS + 3
    hidden, weight = torch.randn(tokens, 32, requires_grad=True), torch.randn(300, 32, requires_grad=True)
    bias = torch.randn(300, requires_grad=True) if with_bias else None
    targets, upstream = torch.randint(0, 300, (tokens,)), torch.rand(tokens)
    leaves = [leaf for leaf in (hidden, weight, bias) if leaf is not None]
    ours = torch.autograd.grad((linear_cross_entropy(hidden, weight, bias, targets) * upstream).sum(), leaves)
    plain = cross_entropy(linear(hidden, weight, bias), targets, reduction="none")
    for mine, theirs in zip(ours, torch.autograd.grad((plain * upstream).sum(), leaves), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_micro_batch_that_supervises_nothing_has_a_gradient_of_zero_for_every_weight():
    hidden, weight = torch.randn(0, 32, requires_grad=True), torch.randn(300, 32, requires_grad=True)
    none = torch.empty(0, dtype=torch.long)
    for trained in (True, False):
        leaves = [hidden, weight.requires_grad_()] if trained else [hidden]
        nll = linear_cross_entropy(hidden, weight if trained else weight.detach(), None, none)
        for leaf, gradient in zip(leaves, torch.autograd.grad(nll.sum(), leaves), strict=True):
            assert torch.equal(gradient, torch.zeros_like(leaf))


@pytest.fixture
def model(tiny_base):
    model = AutoModelForCausalLM.from_pretrained(tiny_base).eval().requires_grad_(False)
    add_token_nll(model)
    return model


def test_the_model_returns_the_loss_of_each_supervised_token(model):
    ids = torch.randint(2, 4000, (3, 20))
    labels = ids.clone()
    labels[:, :7] = IGNORE_INDEX
    labels[1, 15:] = IGNORE_INDEX
    mask = torch.ones_like(ids)
    mask[1, 15:] = 0
    nll = model(input_ids=ids, attention_mask=mask, nll_labels=labels)
    expected = model(input_ids=ids, attention_mask=mask, labels=labels).loss  # transformers' own mean
    assert len(nll) == 13 + 8 + 13
    torch.testing.assert_close(nll.mean(), expected, rtol=1e-5, atol=1e-5)


def test_the_reference_likelihood_in_a_batch_is_that_of_each_row_alone(model):
    prompts = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14]]
    references = [[20, 21], [22, 23, 24, 25], []]
    together = reference_nll(model, 1, prompts, references)
    alone = [reference_nll(model, 1, [p], [r])[0] for p, r in zip(prompts, references, strict=True)]
    assert together == pytest.approx(alone, rel=1e-5)
    logits = model(input_ids=torch.tensor([[5, 6, 7, 20, 21]])).logits[0].log_softmax(-1)
    assert together[0] == pytest.approx(-float(logits[2, 20] + logits[3, 21]), rel=1e-5)
    assert together[2] == 0.0
