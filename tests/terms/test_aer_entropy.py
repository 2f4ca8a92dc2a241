import math

import pytest
import torch
from toy import distance, entropy_of_table, logged, parameters, same, table, table_case, table_gradient

from trl_entropy import Tokens
from trl_entropy.rules.terms import AerEntropy


NAN = math.nan


def tokens(entropies: list[list[float]], group_rewards: list[list[float]], mask=None) -> Tokens:
    entropies = torch.tensor(entropies, requires_grad=True)
    zeros = torch.zeros_like(entropies)
    mask = torch.ones_like(zeros, dtype=torch.bool) if mask is None else torch.tensor(mask)
    return Tokens(zeros, zeros, entropies, zeros, mask, group_rewards=torch.tensor(group_rewards))


# Groups of which none, one in four, all are right
ENTROPIES, REWARDS = [[2.0, 0.5], [2.0, 0.5], [2.0, 0.5]], [[0.0] * 4, [0.0, 1.0, 0.0, 0.0], [1.0] * 4]


@pytest.mark.parametrize(("threshold", "difficulties"), [(1.0, [1.0, 0.75, 0.0]), (0.5, [1.0, 0.5, 0.0])])
def test_value_and_gradient_by_hand(threshold, difficulties):
    # d = 1 - 0 / rho, 1 - 0.25 / rho, and 0 from rho on; t = -0.5 d H, whose gradient by H is -0.5 d
    given = tokens(ENTROPIES, REWARDS)
    term = AerEntropy(coef=0.5, threshold=threshold)(given)
    expected = torch.tensor([[-1.0 * d, -0.25 * d] for d in difficulties])
    torch.testing.assert_close(term, expected, rtol=1e-6, atol=0)
    (gradient,) = torch.autograd.grad(term.sum(), given.entropies)
    torch.testing.assert_close(gradient, torch.tensor([[-0.5 * d] * 2 for d in difficulties]), rtol=1e-6, atol=0)


def test_prompt_above_the_threshold_gets_no_bonus():
    # three in four right, threshold 0.5: 1 - 1.5 is below 0
    assert AerEntropy(threshold=0.5)(tokens([[2.0]], [[1.0, 1.0, 1.0, 0.0]])).tolist() == [[0.0]]


def test_graded_rewards_count_by_their_mean():
    # mean 0.375 of threshold 0.75: one half of 0.5 * 2
    term = AerEntropy(coef=0.5, threshold=0.75)(tokens([[2.0]], [[0.25, 0.5]]))
    assert term.item() == pytest.approx(-0.5, rel=1e-6)


def test_missing_rewards_do_not_count_and_a_group_without_any_gets_no_bonus():
    term = AerEntropy(coef=1.0)(tokens([[2.0], [2.0]], [[NAN, 1.0, 0.0, NAN], [NAN] * 4]))
    assert term.tolist() == [[-1.0], [0.0]]


def test_padding_has_neither_value_nor_gradient():
    given = torch.tensor([[2.0, NAN]], requires_grad=True)
    zeros = torch.zeros(1, 2)
    mask = torch.tensor([[True, False]])
    term = AerEntropy(coef=0.5)(Tokens(zeros, zeros, given, zeros, mask, group_rewards=torch.zeros(1, 4)))
    assert term.tolist() == [[-1.0, 0.0]]
    (gradient,) = torch.autograd.grad(term.sum(), given)
    assert gradient.tolist() == [[-0.5, 0.0]]


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo"])
def test_it_adds_the_gradient_of_the_entropy_of_hard_prompts_to_every_loss(loss_type):
    # dH/dz_v = -pi(v) (log pi(v) + H); the mean is over the trained tokens of the step
    given, logits = table_case()
    given["group_rewards"] = torch.tensor([[0.0] * 4] * 3 + [[1.0, 0.0, 0.0, 0.0]] * 3 + [[1.0] * 4] * 2).double()
    difficulty = torch.tensor([1.0] * 3 + [0.5] * 3 + [0.0] * 2).double()  # threshold 0.5
    mask = given["completion_mask"].bool()
    logps = logits.log_softmax(-1)
    slope = -logps.exp() * (logps + entropy_of_table(logits).unsqueeze(-1))
    expected = 0.3 * difficulty[:, None, None] * mask.unsqueeze(-1) * slope / mask.sum()

    without = table_gradient(table(logits, plain=True, loss_type=loss_type), given)
    terms = {"aer_entropy": {"coef": 0.3, "threshold": 0.5}}
    both = table_gradient(table(logits, loss_type=loss_type, loss_terms=terms), given)
    assert distance(both - without, expected) < 1e-10
    assert expected.norm() > 0


def test_where_no_prompt_is_ever_solved_it_is_the_bonus_of_trl():
    # of one micro-batch, whose mean over tokens is that of the step
    given, logits = table_case()
    given["group_rewards"] = torch.zeros(8, 4).double()
    bonus = table_gradient(table(logits, plain=True, entropy_coef=0.3), given)
    term = table_gradient(table(logits, loss_terms={"aer_entropy": {"coef": 0.3}}), given)
    assert distance(term, bonus) < 1e-12


def test_it_trains_as_the_bonus_of_trl_where_no_prompt_is_ever_solved(run, tmp_path):
    def never(completions, **kwargs):
        return [0.0] * len(completions)

    settings = {"reward_funcs": never, "learning_rate": 1e-2}
    term = run(output_dir=tmp_path / "term", loss_terms={"aer_entropy": {"coef": 0.5}}, **settings)
    bonus = run(output_dir=tmp_path / "bonus", plain=True, entropy_coef=0.5, **settings)
    assert logged(term, "entropy") == pytest.approx(logged(bonus, "entropy"), rel=1e-5)
    assert logged(term, "entropy")[-1] > logged(term, "entropy")[0]
    assert logged(term, "loss_terms/aer_entropy/mean")[0] == pytest.approx(-0.5 * logged(term, "entropy")[0], rel=1e-5)
    assert not same(parameters(term), parameters(run(output_dir=tmp_path / "none", **settings)))


def test_controller_may_turn_it_on_in_the_middle_of_a_rollout_batch(run):
    # entropy starts at about 2.6 and the coefficient at 0, so the second of the two updates is the first with a bonus
    law = {"law": "integral", "knob": "loss_terms.aer_entropy.coef", "rate": 0.1, "initial": 0.0, "target": 4.0}
    trainer = run(off_policy_updates=2, loss_terms={"aer_entropy": {}}, controllers={"aer": law})
    first, *others = logged(trainer, "knobs/loss_terms.aer_entropy.coef")
    assert first == 0.0
    assert min(others) > 0
    assert logged(trainer, "loss_terms/aer_entropy/share")[0] > 0


def test_no_trained_token_is_no_error():
    assert (AerEntropy()(tokens([[1.0, 1.0]], [[0.0, 1.0]], mask=[[False, False]])) == 0).all()


@pytest.mark.parametrize("value", [-0.1, math.inf, NAN])
def test_coef_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="coef must be a number >= 0, got"):
        AerEntropy(coef=value)


@pytest.mark.parametrize("value", [-0.1, 1.1, NAN, "1"])
def test_threshold_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="threshold must be a number >= 0 and <= 1, got"):
        AerEntropy(threshold=value)


def test_threshold_of_zero_is_refused():
    with pytest.raises(ValueError, match="threshold must be > 0, got 0: with it no prompt gets a bonus; coef 0"):
        AerEntropy(threshold=0)


def test_coef_turns_it_off():
    assert AerEntropy(coef=0.0).neutral
    assert not AerEntropy().neutral
    assert (AerEntropy(coef=0.0)(tokens([[2.0]], [[0.0]])) == 0).all()


def test_it_selects_tokens_and_names_what_it_needs():
    assert AerEntropy.token_selective
    assert AerEntropy.needs == {"entropy_gradient", "group_rewards"}
