"""A rollout_func whose environment writes tokens that the policy finds hopeless."""

import pytest
import torch
from alone import (
    EVERYTHING,
    SELECTION,
    WEIGHTS,
    as_trl,
    assert_everything_acts,
    assert_loss_of_policy,
    assert_measured_of_policy,
    assert_trained_as_trl,
    chosen,
    measured_of_all,
    of_policy,
    plain_copy,
    raw_logits,
    training,
    without_times,
)
from toy import distance, flat, logged, number, parameters, same


pytestmark = pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")


class Turns:
    """
    The policy writes, the environment answers, the policy writes again and the environment has the last word.

    What the policy writes follows from the prompt and the repetition. In the last of each group it writes nothing.

    Args:
        last (`int`):
            What the environment says at the end.
    """

    def __init__(self, last: int = 0):
        self.last = last

    def __call__(self, prompts, trainer) -> dict:
        rows = [self._row(prompt, place % 4, trainer) for place, prompt in enumerate(prompts)]
        prompt_ids, completion_ids, masks = zip(*rows, strict=True)
        own = [[i for i, mine in zip(*row, strict=True) if mine] for row in zip(completion_ids, masks, strict=True)]
        return {
            "prompt_ids": list(prompt_ids),
            "completion_ids": list(completion_ids),
            "logprobs": None,
            "env_mask": list(masks),
            "own": own,
        }

    def _row(self, prompt: str, repetition: int, trainer) -> tuple[list[int], list[int], list[int]]:
        generator = torch.Generator().manual_seed(100 * number(prompt) + repetition)
        start, ids, mask = trainer.processing_class(prompt)["input_ids"], [], []
        for turn in range(2):
            words = torch.randint(2, 22, (1 + (repetition + turn) % 3,), generator=generator).tolist()
            ids += words
            mask += [repetition != 3] * len(words)
            for _ in range(2):
                ids.append(hopeless(trainer.model, start + ids, self.last if turn else 0))
                mask.append(False)
        return start, ids, [int(own) for own in mask]


def hopeless(model, ids: list[int], place: int) -> int:
    """The token that the policy finds least likely, or one of the next."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
    return logits[2:].argsort()[place].item() + 2


def odd_length(own, prompts, **kwargs) -> list[float]:
    """A reward that the environment has no part in; every third problem is never solved."""
    return [float(len(ids) % 2 and number(prompt) % 3 > 0) for ids, prompt in zip(own, prompts, strict=True)]


@pytest.fixture
def build_turns(build):
    def make(last: int = 0, **settings):
        return build(rollout_func=Turns(last), reward_funcs=odd_length, max_completion_length=12, **settings)

    return make


@pytest.fixture
def run_turns(build_turns):
    return training(build_turns)


@as_trl
def test_training_with_neutral_settings_is_that_of_trl(run_turns, settings, neutral):
    assert_trained_as_trl(run_turns(plain=True, **settings), run_turns(**settings, **neutral))


def test_everything_acts(run_turns, build):
    before = parameters(build())
    assert_everything_acts(run_turns(**EVERYTHING), before)


def test_everything_acts_on_accumulated_micro_batches(run_turns, build):
    splits = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    assert_everything_acts(run_turns(**EVERYTHING, **splits), parameters(build()))


def test_measures_are_of_what_the_policy_wrote(run_turns):
    settings = {"entropy_measures": "full", "temperature": 0.8, "learning_rate": 0.0, "max_steps": 1}
    trainer = run_turns(**WEIGHTS, **settings)
    assert_measured_of_policy(trainer)
    last, of_all = trainer.measures.last, measured_of_all(trainer)
    # With the tokens of the environment, whose log-probs are far from the others', each would be another one
    for name in ("entropy", "covariance/logp_advantage", "gradient_mass/negative", "share/unlikely_positive"):
        assert abs(last[name] - of_all[name]) > 0.01


@pytest.mark.parametrize("rules", [{}, SELECTION], ids=["weights", "selection"])
def test_loss_and_gradient_are_of_what_the_policy_wrote(run_turns, rules):
    assert_loss_of_policy(run_turns(**WEIGHTS, **rules, temperature=0.8, learning_rate=0.0, max_steps=1))


# A rule that orders tokens would break ties of equal tokens by the hash of their completion
WITHOUT_ORDER = {**EVERYTHING, "token_weights": {"confident_sign": {"alpha": 0.3}}, "loss_terms": {}}


def test_last_word_of_the_environment_changes_nothing(run_turns):
    first, second = (run_turns(last, **WITHOUT_ORDER) for last in (0, 7))
    assert not torch.equal(first._buffered_inputs[0]["completion_ids"], second._buffered_inputs[0]["completion_ids"])
    assert same(parameters(first), parameters(second))
    assert without_times(first.state.log_history) == without_times(second.state.log_history)
    assert first.control_state() == second.control_state()


SPLITS = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}


def test_groups_that_are_put_together_keep_the_mask(run_turns):
    rules = {"rollout_rules": {"dynamic_sampling": {"max_rounds": 2}}}
    batches = run_turns(**WEIGHTS, **SPLITS, **rules, learning_rate=0.0, max_steps=1)._buffered_inputs
    own = sum(of_policy(batch).sum() for batch in batches)
    assert all(batch["num_items_in_batch"] == own for batch in batches)
    assert own < sum(batch["completion_mask"].sum() for batch in batches)


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_fast_steps_are_those_of_trl(run_turns, loss_type):
    settings = {"optim": "sgd", "learning_rate": 0.1, "loss_type": loss_type, **SPLITS}
    trl, ours = run_turns(plain=True, **settings), run_turns(fast_step=True, **settings)
    assert distance(flat(parameters(ours)), flat(parameters(trl))) < 1e-6
    assert logged(ours, "loss") == pytest.approx(logged(trl, "loss"), abs=1e-6)


def test_log_probs_of_a_group_are_of_what_the_policy_wrote(build_turns):
    trainer = build_turns(token_weights={"perplexity": {}}, learning_rate=0.0, max_steps=1)
    seen, observe = [], trainer.observe
    trainer.observe = lambda tokens, effective: (seen.append(tokens), observe(tokens, effective))
    trainer.train()
    (tokens,), inputs = seen, trainer._buffered_inputs[0]
    mask = of_policy(inputs)
    with torch.no_grad():
        logps = chosen(raw_logits(plain_copy(trainer.model), inputs), inputs)
    expected = torch.where(mask, logps, 0).sum(1) / mask.sum(1)
    wrote = mask.any(1)
    assert wrote.sum() == 6
    assert torch.equal(tokens.group_logps.isnan(), torch.tensor([[False, False, False, True]] * 8))
    found = tokens.group_logps[~tokens.group_logps.isnan()].double().unique()
    torch.testing.assert_close(found, expected[wrote].sort().values, rtol=0, atol=1e-5)
    nearest = (tokens.group_logps[:, :3] - expected.unsqueeze(1)).abs().amin(1)
    assert (nearest[wrote] < 1e-5).all()  # each row has the group that it is of
