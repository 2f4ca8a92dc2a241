"""Rules with statistics over the optimizer step, in the trainer: how the step is split does not matter."""

import pytest
import torch
from toy import EntropyGiven, distance, flat, halves, parameters, same

from trl_entropy import EntropyGRPOConfig
from trl_entropy._seam import facts
from trl_entropy.rules.rule import PlainFunction


SGD = {"loss_type": "dapo", "optim": "sgd", "max_grad_norm": 0.0, "learning_rate": 0.3, "max_steps": 2}
RULES = {"token_weights": {"high_entropy": {"fraction": 0.4}}}
SPLITS = {"one": (16, 1), "two": (8, 2), "four": (4, 4)}


class Recording(EntropyGiven):
    """Keeps which weight every token of every completion got in the first step."""

    def effective_advantages(self, raw, tokens):
        effective = super().effective_advantages(raw, tokens)
        if self.state.global_step == 0:
            self.__dict__.setdefault("weights", {})
            for row, completion in enumerate(tokens.completions.tolist()):
                kept = (effective[row] != 0) | (tokens.advantages[row] == 0)
                self.weights[completion] = kept[tokens.mask[row]].tolist()
        return effective


class Counting(EntropyGiven):
    """Counts forward passes for a loss."""

    forwards = 0

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        self.forwards += self.seam.facts.results is not None
        return super()._get_per_token_logps_and_entropies(*args, **kwargs)


def trained(run, split: str, trainer_class=Recording, **arguments):
    rows, steps = SPLITS[split]
    sizes = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": steps}
    return run(trainer_class=trainer_class, **SGD, **sizes, **{**RULES, **arguments})


@pytest.mark.parametrize("split", ["two", "four"])
def test_selection_and_training_do_not_depend_on_micro_batches(run, split):
    whole, parts = trained(run, "one"), trained(run, split)
    assert whole.weights == parts.weights
    assert len({tuple(row) for row in whole.weights.values()}) > 1
    assert distance(flat(parameters(whole)), flat(parameters(parts))) < 1e-6


def test_quantile_of_a_micro_batch_would_select_otherwise(run, monkeypatch):
    whole = trained(run, "one")
    monkeypatch.setattr(facts.Facts, "look_ahead", lambda self, model, needs: None)
    parts = trained(run, "four")
    assert whole.weights.keys() == parts.weights.keys()
    assert whole.weights != parts.weights


def test_look_ahead_is_one_forward_for_each_micro_batch_and_only_for_rules_that_need_it(run):
    # two steps of four micro-batches: eight losses, and eight more forward passes with the rule
    assert trained(run, "four", Counting).forwards == 16
    assert trained(run, "four", Counting, token_weights={"sign": {}}).forwards == 8
    assert trained(run, "one", Counting).forwards == 2
    assert trained(run, "four", Counting, pooling="lagged").forwards == 8


def test_completions_are_hashed_once(run, monkeypatch):
    hashed, of = [], facts._completions
    monkeypatch.setattr(facts, "_completions", lambda inputs: hashed.append(inputs) or of(inputs))
    trained(run, "four")  # two steps of four micro-batches, each looked at twice
    assert len(hashed) == 8
    trained(run, "four", EntropyGiven, token_weights={"sign": {}})
    assert len(hashed) == 8


@pytest.mark.parametrize(
    ("read", "need"),
    [
        (lambda tokens: tokens.pool.mean(lambda batch: batch.entropies), "pool"),
        (lambda tokens: tokens.noise(), "completions"),
        (lambda tokens: tokens.offline is None, "offline"),
    ],
)
def test_rule_that_does_not_name_what_it_reads_is_told(build, read, need):
    def forgetful(tokens):
        return torch.ones_like(tokens.logps) + 0 * read(tokens)

    trainer = build()
    trainer.rules.sections["token_weights"]["forgetful"] = PlainFunction(forgetful)
    with pytest.raises(ValueError, match=f"reads tokens.{need} without listing it: add '{need}' to the rule's"):
        trainer.train()


def test_rule_that_does_not_name_old_entropies_is_told_off_policy(build):
    trainer = build(off_policy_updates=2)
    forgetful = PlainFunction(lambda tokens: (tokens.entropies == tokens.old_entropies).float())
    trainer.rules.sections["token_weights"]["forgetful"] = forgetful
    with pytest.raises(ValueError, match="reads tokens.old_entropies without listing it: add 'old_entropies' to"):
        trainer.train()


@pytest.mark.parametrize("evaluates", [False, True])
def test_lagged_pool_is_the_step_before(run, dataset, evaluates):
    class Seen(EntropyGiven):
        def effective_advantages(self, raw, tokens):
            if not self.model.training:
                return super().effective_advantages(raw, tokens)
            pools = self.__dict__.setdefault("pools", {})
            pools.setdefault(self.state.global_step, []).append(tokens.pool)
            self.__dict__.setdefault("seen", {}).setdefault(self.state.global_step, []).append(tokens)
            return super().effective_advantages(raw, tokens)

    flags = {"eval_strategy": "steps", "eval_steps": 1, "eval_dataset": dataset} if evaluates else {}
    trainer = trained(run, "two", Seen, pooling="lagged", **flags)
    first, second = trainer.pools[0], trainer.pools[1]
    assert [len(pool.batches) for pool in first] == [1, 1]  # there is no step before: the micro-batch alone
    assert second[0] is second[1]
    before = torch.cat([tokens.entropies.flatten() for tokens in trainer.seen[0]])
    assert torch.equal(torch.cat([tokens.entropies.flatten() for tokens in second[0].batches]), before)


def test_evaluation_pools_its_own_batch(run):
    trainer = trained(run, "two")
    trainer.eval_dataset = trainer.train_dataset
    before = parameters(trainer)
    trainer.evaluate()
    assert same(parameters(trainer), before)
    assert trainer.seam.step is None


@pytest.mark.parametrize("pooling", ["exact", "lagged"])
def test_rollout_batches_that_cut_through_a_step_are_refused_where_the_pool_is_exact(pooling):
    settings = {
        "output_dir": "unused",
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "gradient_accumulation_steps": 4,
        "steps_per_generation": 6,
        "per_device_train_batch_size": 8,
        "pooling": pooling,
    }
    EntropyGRPOConfig(**settings)
    if pooling == "lagged":
        EntropyGRPOConfig(**settings, **RULES)
        return
    with pytest.raises(ValueError, match=r"steps_per_generation=6 is not a multiple of gradient_accumulation_steps=4"):
        EntropyGRPOConfig(**settings, **RULES)


def test_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match=r"unknown pooling 'exactly'\. Did you mean 'exact'\?"):
        EntropyGRPOConfig(output_dir="unused", use_cpu=True, bf16=False, report_to="none", pooling="exactly")


# Facts that travel with the batch


def rule_that_reads(name: str, needed: str):
    from trl_entropy import Rule

    class Reads(Rule):
        needs = frozenset({needed})
        seen = []

        def __call__(self, tokens):
            self.seen.append((tokens.detach(), tokens.step))
            return torch.ones_like(tokens.logps)

    Reads.__name__ = name
    return Reads()


class WithRule(EntropyGiven):
    """A rule of the test in place of configured ones."""

    rule = None

    def needs(self):
        return super().needs() | set(self.rule.needs)

    def effective_advantages(self, raw, tokens):
        self.rule(tokens)
        return super().effective_advantages(raw, tokens)


def test_rewards_of_the_group_travel_with_their_completion(run):
    rule = rule_that_reads("group", "group_rewards")
    trainer_class = type("WithGroups", (WithRule,), {"rule": rule})
    run(trainer_class=trainer_class, **{**SGD, "steps_per_generation": 2, "per_device_train_batch_size": 8})
    assert rule.seen
    for tokens, _ in rule.seen:
        rewards = tokens.group_rewards
        assert rewards.shape == (8, 4)
        assert set(rewards.unique().tolist()) <= {0.0, 1.0}
        # TRL: advantage = (reward - mean) / (sample deviation + 1e-4), so it is one of these two, or 0
        mean, std = rewards.mean(1), rewards.std(1)
        high, low = (1 - mean) / (std + 1e-4), -mean / (std + 1e-4)
        advantage = tokens.advantages[:, 0]
        expected = torch.where(advantage > 0, high, torch.where(advantage < 0, low, 0.0))
        torch.testing.assert_close(advantage, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {},  # TRL takes no log-probs of the policy that sampled
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
        {"num_iterations": 2},
        {"rollout_rules": {"prompt_temperature": {"step": 0.5}}, "mask_truncated_completions": True},
    ],
    ids=lambda settings: next(iter(settings), "on-policy"),
)
def test_log_probs_of_the_group_are_those_of_its_completions(run, settings):
    rule = rule_that_reads("group", "group_logps")
    trainer_class = type("WithGroupLogps", (WithRule,), {"rule": rule})
    run(trainer_class=trainer_class, **{**SGD, "per_device_train_batch_size": 8, "reward_funcs": halves, **settings})
    for step in {step for _, step in rule.seen}:
        seen = [tokens for tokens, of_step in rule.seen if of_step == step]
        own = torch.cat([tokens.mean_over_row(tokens.old_logps) for tokens in seen])
        own[~torch.cat([tokens.mask.any(1) for tokens in seen])] = 9.0
        groups = torch.cat([tokens.group_logps for tokens in seen]).nan_to_num(9.0)
        assert groups.shape == (8, 4)
        assert torch.isclose(groups, own.unsqueeze(1), rtol=1e-5, atol=1e-6).any(1).all()
        # the two groups have a place for every completion
        first, second = groups[0], groups[(groups != groups[0]).any(1)][0]
        expected = torch.cat([first, second]).sort().values
        torch.testing.assert_close(own.sort().values, expected, rtol=1e-5, atol=1e-6)


def test_entropy_of_the_old_policy_is_that_of_the_rollout(run):
    rule = rule_that_reads("old", "old_entropies")
    trainer_class = type("WithOld", (WithRule,), {"rule": rule})
    run(trainer_class=trainer_class, **{**SGD, "num_iterations": 2, "max_steps": 4})
    first, second, *_ = [tokens for tokens, _ in rule.seen]
    # the first pass over a rollout batch is by the policy that generated it, the second is not
    torch.testing.assert_close(first.old_entropies, first.entropies, rtol=1e-5, atol=1e-6)
    assert torch.equal(second.old_entropies, first.old_entropies)
    assert (second.entropies - second.old_entropies).abs().max() > 1e-4


def test_expected_discriminator_is_that_of_the_whole_vocabulary(run):
    rule = rule_that_reads("vocabulary", "expected_discriminator")
    seen = {}

    class Watching(WithRule):
        def effective_advantages(self, raw, tokens):
            with torch.no_grad():
                inputs = self._buffered_inputs[self._step % self.args.steps_per_generation]
                ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
                mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
                logits = self.model(input_ids=ids, attention_mask=mask).logits / self.temperature
                logps = logits[:, -inputs["completion_ids"].shape[1] - 1 : -1].double().log_softmax(-1)
                entropies = -(logps.exp() * logps).sum(-1, keepdim=True)
                expected = (logps.exp().square() * (entropies + logps)).sum(-1)
            seen[self.state.global_step] = torch.where(tokens.mask, expected, 0.0)
            return super().effective_advantages(raw, tokens)

    Watching.rule = rule
    run(trainer_class=Watching, **{**SGD, "temperature": 0.7})
    assert set(seen) == {0, 1}
    for tokens, step in rule.seen:
        torch.testing.assert_close(tokens.expected_discriminator.double(), seen[step], rtol=1e-4, atol=1e-6)
