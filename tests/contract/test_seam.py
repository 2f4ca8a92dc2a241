"""The rules act through TRL's own loss, and a TRL that computes it in another order is refused."""

import contextlib
import copy
from types import SimpleNamespace

import pytest
import torch
from toy import (
    LOSS_TYPES,
    batch,
    distance,
    flat,
    fresh_logps,
    loss_and_gradients,
    moved,
    random_tokens,
    same,
    table,
    table_case,
    table_gradient,
)
from trl import GRPOTrainer

from trl_entropy import EntropyGRPOTrainer, SeamError, with_entropy_control
from trl_entropy._seam import Hooks, Seam
from trl_entropy._seam.advantages import LateAdvantages, TokenAdvantages
from trl_entropy.families import GRPO


class Order:
    """Stands in for `GRPOTrainer`: what its loss does first is up to the subclass."""

    accelerator = SimpleNamespace(num_processes=1)
    state = SimpleNamespace(global_step=0)
    model = SimpleNamespace(training=True)
    temperature = 1.0

    def _get_per_token_logps_and_entropies(self):
        zeros = torch.zeros(2, 3)
        return zeros, zeros, None


class ForwardFirst(Order):
    def _compute_loss(self, model, inputs):
        self._get_per_token_logps_and_entropies()
        return inputs["advantages"].sum()


class AdvantagesFirst(Order):
    def _compute_loss(self, model, inputs):
        advantages = inputs["advantages"]
        self._get_per_token_logps_and_entropies()
        return advantages.sum()


class AdvantagesTwice(Order):
    def _compute_loss(self, model, inputs):
        self.first = inputs["advantages"]
        self._get_per_token_logps_and_entropies()
        return inputs["advantages"].sum()


class AdvantagesNever(Order):
    def _compute_loss(self, model, inputs):
        self._get_per_token_logps_and_entropies()
        return inputs["completion_mask"].sum()


class AdvantagesByGet(Order):
    def _compute_loss(self, model, inputs):
        self._get_per_token_logps_and_entropies()
        return inputs.get("advantages").sum()


class AdvantagesOfCopy(Order):
    def _compute_loss(self, model, inputs):
        self._get_per_token_logps_and_entropies()
        return dict(inputs)["advantages"].sum()


class NoEntropies(ForwardFirst):
    def _get_per_token_logps_and_entropies(self):
        return torch.zeros(2, 3), None, None


class TwoValues(ForwardFirst):
    def _get_per_token_logps_and_entropies(self):
        return torch.full((2, 3), -1.0), torch.full((2, 3), 2.0)


class Breaks(Order):
    def _compute_loss(self, model, inputs):
        self._get_per_token_logps_and_entropies()
        raise FloatingPointError("in TRL")


def seam(order: type, doubled: bool = False):
    """The seam before a stand-in; it records what it is given."""

    class Ours(Hooks, order):
        family = GRPO
        measured_needs = frozenset()
        seen = None
        observed = 0
        epsilon_low, epsilon_high = 0.2, 0.28
        importance_sampling_level = "token"

        def __init__(self):
            self.seam = Seam(self)

        def needs(self):
            return frozenset()

        def effective_advantages(self, raw, tokens):
            self.seen = tokens
            return 2 * raw if doubled else raw

        def extra_loss(self, tokens):
            return {}

        def observe(self, tokens, effective):
            self.observed += 1
            self.effective = effective

    return Ours()


def inputs() -> dict:
    return {"advantages": torch.tensor([1.0, -3.0]), "completion_mask": torch.ones(2, 3, dtype=torch.int)}


def test_order_that_trl_has_works():
    # sum of the advantages is 1 - 3 = -2, and -4 when doubled
    assert seam(ForwardFirst)._compute_loss(None, inputs()) == -2
    assert seam(ForwardFirst, doubled=True)._compute_loss(None, inputs()) == -4


def test_whoever_looks_before_the_forward_sees_the_raw_advantages():
    trainer = seam(AdvantagesTwice, doubled=True)
    assert trainer._compute_loss(None, inputs()) == -4
    assert trainer.first.tolist() == [1.0, -3.0]


@pytest.mark.parametrize("order", [AdvantagesFirst, AdvantagesNever, AdvantagesByGet, AdvantagesOfCopy])
def test_advantages_not_read_through_the_seam_are_refused(order):
    with pytest.raises(SeamError, match="without reading `advantages`"):
        seam(order)._compute_loss(None, inputs())


def test_forward_without_entropies_is_refused():
    with pytest.raises(SeamError, match="returned no entropies"):
        seam(NoEntropies)._compute_loss(None, inputs())


def test_forward_of_older_trl_with_two_values_works():
    trainer = seam(TwoValues)
    assert trainer._compute_loss(None, inputs()) == -2
    assert (trainer.seen.logps == -1).all()
    assert (trainer.seen.entropies == 2).all()


def test_error_inside_trl_closes_the_seam():
    trainer = seam(Breaks)
    with pytest.raises(FloatingPointError, match="in TRL"):
        trainer._compute_loss(None, inputs())
    assert trainer.seam.facts.results is None


@pytest.mark.parametrize("order", [ForwardFirst, AdvantagesFirst, AdvantagesNever])
def test_seam_is_closed_after_every_loss(order):
    trainer = seam(order)
    with contextlib.suppress(SeamError):
        trainer._compute_loss(None, inputs())
    assert trainer.seam.facts.results is None


def test_forward_outside_of_a_loss_is_not_captured():
    trainer = seam(ForwardFirst)
    assert len(trainer._get_per_token_logps_and_entropies()) == 3
    assert trainer.seam.facts.results is None


def test_error_of_one_loss_does_not_hide_the_next():
    trainer = seam(AdvantagesFirst)
    for _ in range(2):  # facts of the first loss must not serve the second
        with pytest.raises(SeamError):
            trainer._compute_loss(None, inputs())


def test_observation_is_of_training_alone():
    trainer = seam(ForwardFirst)
    trainer._compute_loss(None, inputs())
    trainer.model = SimpleNamespace(training=False)
    trainer._compute_loss(None, inputs())
    assert trainer.observed == 1


def test_tokens_are_those_of_the_batch():
    given = inputs()
    given["completion_mask"][1, 2] = 0
    given["tool_mask"] = torch.tensor([[1, 0, 1], [1, 1, 1]])
    given["old_per_token_logps"] = torch.full((2, 3), -0.5)
    trainer = seam(TwoValues)
    trainer.state = SimpleNamespace(global_step=7)
    trainer._compute_loss(None, given)
    tokens = trainer.seen
    assert tokens.mask.tolist() == [[True, False, True], [True, True, False]]  # completion and not tool
    assert tokens.old_logps.tolist() == [[-0.5, 0.0, -0.5], [-0.5, -0.5, 0.0]]
    assert tokens.advantages.tolist() == [[1.0, 0.0, 1.0], [-3.0, -3.0, 0.0]]
    assert tokens.step == 7


def test_old_policy_is_the_fresh_one_if_trl_gives_none():
    trainer = seam(TwoValues)
    trainer._compute_loss(None, inputs())
    assert torch.equal(trainer.seen.old_logps, trainer.seen.logps)


def test_advantages_per_token_are_taken_as_they_are():
    given = inputs() | {"advantages": torch.tensor([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]])}
    trainer = seam(ForwardFirst)
    trainer._compute_loss(None, given)
    assert torch.equal(trainer.seen.advantages, given["advantages"])


def test_advantages_of_tokens_are_a_plain_tensor_in_every_other_respect():
    plain = torch.arange(12.0).view(4, 3)
    own = plain.as_subclass(TokenAdvantages)
    for use in (
        lambda a: a[[1, 0, 3, 2]],
        lambda a: a[0],
        lambda a: a[a >= 0],
        lambda a: a.view(-1),
        lambda a: a.view(3, 4),
        lambda a: a.unsqueeze(0),
        lambda a: a.clamp(min=3.0),
        copy.deepcopy,
        lambda a: torch.cat([a, a]),
    ):
        found = use(own)
        assert type(found) is torch.Tensor
        assert torch.equal(found, use(plain))
    assert torch.equal(torch.unsqueeze(input=own, dim=1), plain)


def test_weights_get_no_gradient():
    class WithGradient(ForwardFirst):
        def _get_per_token_logps_and_entropies(self):
            ones = torch.ones(2, 3, requires_grad=True)
            return -ones, 2 * ones, None

    trainer = seam(WithGradient)
    trainer._compute_loss(None, inputs())
    assert not trainer.seen.logps.requires_grad
    assert not trainer.seen.entropies.requires_grad


def test_advantages_are_decided_once_and_other_keys_pass():
    calls = []

    def decide(raw):
        calls.append(raw)
        return raw + 1

    given = {"advantages": torch.zeros(2), "other": "kept"}
    known = []
    late = LateAdvantages(given, lambda: bool(known), decide)
    assert late["advantages"] is given["advantages"]
    known.append(True)
    assert (late["other"], late.get("missing"), "advantages" in late, calls) == ("kept", None, True, [])
    assert late["advantages"] is late["advantages"]
    assert late["advantages"].tolist() == [1.0, 1.0]
    assert len(calls) == 1


WAYS_TO_ADD_TOKENS = {
    "unsqueeze": lambda advantages: advantages.unsqueeze(1),
    "torch": lambda advantages: torch.unsqueeze(advantages, dim=-1),
    "none": lambda advantages: advantages[:, None],
    "view": lambda advantages: advantages.view(-1, 1),
    "reshape": lambda advantages: torch.reshape(advantages, (-1, 1)),
}


class Widened(dict):
    """A batch whose reader always adds the dimension of the tokens to its advantages."""

    def __init__(self, inputs: dict, way):
        super().__init__(inputs)
        self.inputs, self.way = inputs, way

    def __getitem__(self, key):
        value = self.inputs[key]
        return self.way(value) if key == "advantages" else value


@pytest.mark.parametrize("way", WAYS_TO_ADD_TOKENS)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_rules_act_in_a_trl_that_takes_one_advantage_for_each_completion(build, loss_type, way):
    class OneEach(GRPOTrainer):
        def _compute_loss(self, model, inputs):
            return super()._compute_loss(model, Widened(inputs, WAYS_TO_ADD_TOKENS[way]))

    rules = {
        "loss_type": loss_type,
        "positive_advantage_coef": 0.3,
        "advantage_bonuses": {"entropy_advantage": {"alpha": 0.4, "kappa": 2.0}},
    }
    ours, other = build(**rules), build(trainer_class=with_entropy_control(OneEach), **rules)
    given = batch()
    given["old_per_token_logps"] = moved(fresh_logps(ours, given), by=0.4)
    (loss, gradients), (other_loss, other_gradients) = (
        loss_and_gradients(ours, given),
        loss_and_gradients(other, given),
    )
    assert torch.equal(other_loss, loss)
    assert same(other_gradients, gradients)
    assert not same(gradients, loss_and_gradients(build(loss_type=loss_type), given)[1])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"positive_advantage_coef": 0.3},
        {"loss_terms": {"confident_surrogate": {"alpha": 0.5, "mean_over": "all"}}},
    ],
)
def test_batch_is_not_changed(build, settings):
    trainer = build(**settings)
    given = batch()
    given["old_per_token_logps"] = moved(fresh_logps(trainer, given), by=0.3)
    before = copy.deepcopy(given)
    trainer._compute_loss(trainer.model, given)
    assert type(given) is dict
    assert given.keys() == before.keys()
    assert all(torch.equal(given[name], before[name]) for name in before)


def test_real_trainer_that_reads_advantages_first_alone_is_refused(build):
    class Early(GRPOTrainer):
        def _compute_loss(self, model, inputs):
            return super()._compute_loss(model, {**inputs, "advantages": inputs["advantages"]})

    class Ours(EntropyGRPOTrainer, Early):
        pass

    trainer = build(trainer_class=Ours)
    with pytest.raises(SeamError, match="without reading `advantages` after the forward"):
        trainer._compute_loss(trainer.model, batch())


def test_real_trainer_that_looks_at_advantages_first_is_weighted_all_the_same(build):
    class Skips(GRPOTrainer):
        """Leaves out a micro-batch without a signal, as trainers of others do."""

        def _compute_loss(self, model, inputs):
            self.looked = inputs["advantages"]
            return super()._compute_loss(model, inputs) * (self.looked != 0).any()

    class Ours(EntropyGRPOTrainer, Skips):
        pass

    given, weights = batch(), {"positive_advantage_coef": 0.3, "negative_advantage_coef": 0.7}
    trainer = build(trainer_class=Ours, **weights)
    actual = loss_and_gradients(trainer, given)
    expected = loss_and_gradients(build(**weights), given)
    assert torch.equal(trainer.looked, given["advantages"])
    assert torch.equal(actual[0], expected[0])
    assert same(actual[1], expected[1])


def test_real_trainer_that_does_not_read_advantages_is_refused(build):
    class Copied(GRPOTrainer):
        def _compute_loss(self, model, inputs):
            return super()._compute_loss(model, dict(inputs))

    class Ours(EntropyGRPOTrainer, Copied):
        pass

    trainer = build(trainer_class=Ours)
    with pytest.raises(SeamError, match="without reading `advantages`"):
        trainer._compute_loss(trainer.model, batch())


class Elsewhere(GRPOTrainer):
    """A TRL that takes its training loss from another method, from the second step on."""

    def compute_loss(self, model, inputs, **kwargs):
        if self.state.global_step == 0:
            return super().compute_loss(model, inputs, **kwargs)
        return sum(parameter.sum() for parameter in model.parameters())


def test_real_trainer_that_takes_its_loss_from_elsewhere_is_refused(build):
    class Ours(EntropyGRPOTrainer, Elsewhere):
        pass

    trainer = build(trainer_class=Ours)
    with pytest.raises(SeamError, match="TRL trained without calling `_compute_loss`, so no rule could act"):
        trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_zero_one_entropy_weight_is_top_entropy_quantile(build, loss_type, off_policy):
    trl = build(plain=True, loss_type=loss_type, top_entropy_quantile=0.3)
    ours = build(loss_type=loss_type, token_weights={"high_entropy": {"fraction": 0.3}})
    given = batch()
    if off_policy:
        given["old_per_token_logps"] = moved(fresh_logps(trl, given), by=0.4)
    expected, actual = loss_and_gradients(trl, given), loss_and_gradients(ours, given)
    assert torch.equal(actual[0], expected[0])
    assert same(actual[1], expected[1])
    everything = loss_and_gradients(build(plain=True, loss_type=loss_type), given)
    assert distance(flat(everything[1]), flat(expected[1])) > 0.1  # the mask is at work


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("part", ["surrogate", "kl", "entropy_bonus"])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_constant_weight_multiplies_the_surrogate_alone(loss_type, part, level):
    c = 0.37
    variant = {"surrogate": {}, "kl": {"beta": 0.2}, "entropy_bonus": {"entropy_coef": 0.1}}[part]
    common = {"loss_type": loss_type, "importance_sampling_level": level}
    given, logits = table_case()
    surrogate = table_gradient(table(logits, plain=True, **common), given)
    whole = table_gradient(table(logits, plain=True, **common, **variant), given)
    weighted = table(logits, positive_advantage_coef=c, negative_advantage_coef=c, **common, **variant)
    # float64, so that 1e-12 is rounding alone
    assert distance(table_gradient(weighted, given), c * surrogate + (whole - surrogate)) < 1e-12
    assert surrogate.norm() > 1e-3
    assert part == "surrogate" or (whole - surrogate).norm() > 1e-3


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_weights_by_sign_split_the_surrogate(loss_type):
    given, logits = table_case()
    parts = []
    for keep in (given["advantages"] > 0, given["advantages"] < 0):
        part = given | {"advantages": torch.where(keep, given["advantages"], 0.0)}
        parts.append(table_gradient(table(logits, plain=True, loss_type=loss_type), part))
    ours = table(logits, loss_type=loss_type, positive_advantage_coef=0.2, negative_advantage_coef=3.0)
    assert distance(table_gradient(ours, given), 0.2 * parts[0] + 3.0 * parts[1]) < 1e-12


def test_seam_on_a_real_model_multiplies_the_surrogate(build):
    given = batch()
    expected = loss_and_gradients(build(plain=True), given)[1]
    actual = loss_and_gradients(build(positive_advantage_coef=0.5, negative_advantage_coef=0.5), given)[1]
    assert distance(flat(actual), 0.5 * flat(expected)) < 1e-6


def test_random_tokens_of_these_tests_hold_every_sign():
    signs = random_tokens().advantages.sign()
    assert set(signs.unique().tolist()) == {-1.0, 0.0, 1.0}
