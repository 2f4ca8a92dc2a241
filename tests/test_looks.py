"""Looks at the whole vocabulary: what they give, that they are taken together, and what they cost."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toy import LOOKS, batch, loss_and_gradients, parameters, random_tokens, same, seen_in
from transformers import AutoModelForCausalLM

from trl_entropy import EntropyGRPOTrainer, Rule
from trl_entropy._seam import vocabulary
from trl_entropy._seam.vocabulary import check_whole_head, take_looks
from trl_entropy.rules.looks import (
    EntropyAtOne,
    ExpectedDiscriminator,
    IsTop1,
    KeptMass,
    TopKLogp,
    TopPEntropy,
    TopTwoRatio,
)


ALL = (*LOOKS, EntropyAtOne(), ExpectedDiscriminator(), KeptMass(0.1, relative=False))
RULES = {
    "token_weights": {"clip_v": {"mu": 1.0, "max_share": 0.1}},
    "loss_terms": {"siren": {"coef": 0.5}, "paec": {"coef": 0.5}, "simko": {}, "lp_reg": {}},
}


def look_at(probabilities: list[float], look, sampled: int = 0):
    logits = torch.tensor([[probabilities]], dtype=torch.float64).log()
    return seen_in(logits, torch.tensor([[sampled]]), [look])[look].item()


@pytest.mark.parametrize(
    ("look", "expected"),
    [
        (KeptMass(0.4), math.log(0.75)),  # at least 0.2: 0.5 and 0.25
        (KeptMass(0.5), math.log(0.75)),  # exactly half of the largest
        (KeptMass(0.15, relative=False), math.log(0.9)),
        (KeptMass(0.15, relative=True), 0.0),  # at least 0.075: all
        (TopPEntropy(0.8, reaching=False), math.log(3) - 2 / 3 * math.log(2)),  # 2/3 and 1/3
        (
            TopPEntropy(0.8),
            math.log(9) - (5 * math.log(5) + 2.5 * math.log(2.5) + 1.5 * math.log(1.5)) / 9 - math.log(1),
        ),
        (TopPEntropy(0.4), 0.0),  # one is left
        (TopPEntropy(0.4, reaching=False), 0.0),  # none is left
        (TopPEntropy(1.0), 1.2080),
        (TopTwoRatio(), 0.5),
        (IsTop1(), True),
        (TopKLogp(2), (math.log(0.5) + math.log(0.25)) / 2),
        (TopKLogp(9), (math.log(0.5) + math.log(0.25) + math.log(0.15) + math.log(0.1)) / 4),
    ],
    ids=str,
)
def test_look_by_hand(look, expected):
    assert look_at([0.5, 0.25, 0.15, 0.1], look) == pytest.approx(expected, abs=1e-4)


def test_sampled_token_that_is_left_out_gains_nothing():
    assert [look_at([0.5, 0.25, 0.15, 0.1], KeptMass(0.4), word) for word in (2, 3)] == [0.0, 0.0]
    assert look_at([0.5, 0.25, 0.15, 0.1], IsTop1(), 1) is False


def test_equal_tokens_are_kept_together():
    # 0.4 and one of 0.2 stay below 0.7
    kept = torch.tensor([0.4, 0.2, 0.2, 0.2], dtype=torch.float64)
    expected = -(kept * kept.log()).sum().item()
    assert look_at(kept.tolist(), TopPEntropy(0.7, reaching=False)) == pytest.approx(expected, abs=1e-12)


def test_cut_distribution_has_the_gradient_of_its_own_entropy():
    # dH/dz = -q (log q + H) on the kept tokens, 0 on the others
    logits = torch.randn(1, 5, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    look = TopPEntropy(0.7)
    (gradient,) = torch.autograd.grad(seen_in(logits, looks=[look])[look].sum(), logits)
    for row, found in zip(logits[0].detach(), gradient[0], strict=True):
        order = row.softmax(-1).sort(descending=True)
        number = int((order.values.cumsum(-1) < 0.7).sum()) + 1
        kept = order.indices[:number]
        q = row[kept].softmax(-1)
        expected = torch.zeros(40, dtype=torch.float64)
        expected[kept] = -q * (q.log() - (q * q.log()).sum())
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.fixture
def model(model_dir):
    return AutoModelForCausalLM.from_pretrained(model_dir).eval()


@pytest.mark.parametrize("entries", [1, 22 * 3, 2**25])
def test_looks_and_their_gradient_are_those_of_all_logits_at_once(model, monkeypatch, entries):
    monkeypatch.setattr(vocabulary, "ENTRIES", entries)
    ids = torch.randint(2, 22, (3, 8), generator=torch.Generator().manual_seed(0))
    of_rows, slopes = torch.tensor([0.5, 1.0, 1.5]), torch.randn(3, 7, generator=torch.Generator().manual_seed(1))

    def gradients(seen) -> list:
        loss = sum((slopes * value).sum() for look, value in seen.items() if look.has_gradient)
        return torch.autograd.grad(loss, list(model.parameters()))

    states = model.base_model(input_ids=ids).last_hidden_state[:, :-1] / of_rows.view(-1, 1, 1)
    found = take_looks(model, states, ids[:, 1:], 0.7, of_rows, ALL)
    logits = model(input_ids=ids).logits[:, :-1] / of_rows.view(-1, 1, 1) / 0.7
    expected = seen_in(logits, ids[:, 1:], ALL)
    plain = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
    expected[EntropyAtOne()] = -(plain.exp() * plain).sum(-1)
    assert found.keys() == set(ALL)
    for look in ALL:
        assert found[look].requires_grad is look.has_gradient
        torch.testing.assert_close(found[look], expected[look], rtol=1e-4, atol=1e-5)
    for one, other in zip(gradients(found), gradients(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        assert not any(value.requires_grad for value in take_looks(model, states, ids[:, 1:], 0.7, None, ALL).values())


class Largest(TorchDispatchMode):
    """Keeps the number of entries of the largest tensor that an operation makes."""

    entries = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.entries = max(self.entries, tensor.numel())
        return made


@pytest.mark.parametrize("length", [40, 400])
def test_logits_of_all_tokens_never_stand_together(model, monkeypatch, length):
    # 22 words, 10 tokens at once; hidden states of 16 dimensions and answers of one number
    monkeypatch.setattr(vocabulary, "ENTRIES", 220)
    states = torch.randn(1, length, 16)
    with Largest() as largest:
        seen = take_looks(model, states.requires_grad_(), torch.ones(1, length, dtype=torch.long), 1.0, None, ALL)
        sum(value.sum() for look, value in seen.items() if look.has_gradient).backward()
    assert states.grad.abs().sum() > 0
    assert largest.entries <= 16 * length
    assert largest.entries < 22 * length


def test_all_looks_of_a_loss_are_taken_in_one_pass(build, monkeypatch):
    passes, whole_head = [], vocabulary._whole_head
    monkeypatch.setattr(vocabulary, "_whole_head", lambda *args: passes.append(args) or whole_head(*args))
    law = {"law": "bang_bang", "knob": "positive_advantage_coef", "signal": "entropy/temperature_1", "target": 1.0}
    trainer = build(temperature=0.7, controllers={"mine": law}, **RULES)
    loss_and_gradients(trainer, batch())
    assert len(passes) == 1


def test_no_look_is_taken_for_rules_that_do_nothing(build, monkeypatch):
    monkeypatch.setattr(vocabulary, "_whole_head", lambda *args: pytest.fail("a look is taken"))
    loss_and_gradients(build(loss_terms={"siren": {}, "simko": {"alpha": 0.0, "penalty": 1.0}}), batch())


def test_looks_leave_the_loss_of_trl_as_it_is(run, tmp_path):
    seen = []

    class Looking(EntropyGRPOTrainer):
        def needs(self):
            return super().needs() | set(ALL)

        def effective_advantages(self, raw, tokens):
            seen.append([tokens.look(look) for look in ALL])
            return super().effective_advantages(raw, tokens)

    settings = {"num_iterations": 2, "max_steps": 4}
    ours = run(trainer_class=Looking, output_dir=tmp_path / "ours", **settings)
    assert len(seen) == 4
    assert same(parameters(ours), parameters(run(plain=True, output_dir=tmp_path / "plain", **settings)))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("siren", {"coef": 0.5}),
        ("paec", {"coef": 0.5}),
        ("simko", {"alpha": 0.3}),
        ("lp_reg", {"share": 1.0, "kappa": 0.3}),
    ],
)
def test_gradient_of_a_term_reaches_the_model(build, tmp_path, name, settings):
    # the term is a function of logps, entropies and looks: the same of one dense forward, differentiated by autograd
    given = batch(seed=1)
    ours = build(temperature=0.7, loss_terms={name: settings})
    _, both = loss_and_gradients(ours, given)
    _, without = loss_and_gradients(build(plain=True, temperature=0.7, output_dir=tmp_path / "plain"), given)
    (rule,) = ours.rules.sections["loss_terms"].values()

    ids, length = torch.cat([given["prompt_ids"], given["completion_ids"]], 1), given["completion_ids"].shape[1]
    attention = torch.cat([given["prompt_mask"], given["completion_mask"]], 1)
    logits = ours.model(input_ids=ids, attention_mask=attention).logits[:, -length - 1 : -1] / 0.7
    logps = logits.log_softmax(-1)
    tokens = random_tokens(
        logps=logps.gather(-1, given["completion_ids"].unsqueeze(-1)).squeeze(-1),
        old_logps=None,
        entropies=-(logps.exp() * logps).sum(-1),
        advantages=given["advantages"].unsqueeze(1).expand(-1, length),
        mask=given["completion_mask"].bool(),
        rows=8,
        length=length,
        pool=None,
        vocabulary=seen_in(logits, given["completion_ids"], rule.needs - {"pool"}),
    )
    loss = tokens.trained(rule(tokens)).sum() / given["completion_mask"].sum()
    expected = torch.autograd.grad(loss, list(ours.model.parameters()))
    assert sum(one.abs().sum() for one in expected) > 1e-3
    for name, one in zip(both, expected, strict=True):
        torch.testing.assert_close(both[name] - without[name], one, rtol=1e-3, atol=1e-6)


def test_rule_that_forgets_a_look_is_told():
    class Forgets(Rule):
        def __call__(self, tokens):
            return tokens.look(TopPEntropy(0.33))

    with pytest.raises(ValueError, match=r"a rule reads TopPEntropy\(p=0.33, reaching=True\) without listing it"):
        Forgets()(random_tokens())


def test_look_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"IsTop1\(\) must have mask's shape \(4, 5\), got \(4, 6\)"):
        random_tokens(vocabulary={IsTop1(): torch.zeros(4, 6)})


@pytest.mark.parametrize("split", ["fsdp1", "fsdp2", "zero3", None])
def test_gradient_by_a_head_that_cannot_be_gathered_is_refused(split):
    parameter = torch.zeros(1)
    if split == "zero3":
        parameter.ds_id = 0
    trainer = SimpleNamespace(
        is_fsdp_enabled=split in ("fsdp1", "fsdp2"),
        is_deepspeed_enabled=split == "zero3",
        accelerator=SimpleNamespace(is_fsdp2=split == "fsdp2"),
        model=SimpleNamespace(parameters=lambda: [parameter]),
    )
    check_whole_head(trainer, {"pool", IsTop1(), KeptMass(0.02), "expected_discriminator"})
    if split in (None, "fsdp2"):
        check_whole_head(trainer, {TopPEntropy(0.8)})
        return
    with pytest.raises(ValueError, match=r"needs the gradient of TopPEntropy\(p=0.8, reaching=True\) through the"):
        check_whole_head(trainer, {TopPEntropy(0.8), IsTop1()})
