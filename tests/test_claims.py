"""
What papers claim of their rules: one exact gradient step with the rule leaves more entropy than one without.

A table of softmax policies, one for each of 12 places, in float64. 96 completions are sampled from it, and those that
hold many likely tokens are right, so plain GRPO lowers the entropy. Off-policy, the policy has moved on that way.
"""

import pytest
import torch
from test_tokens import CATALOGUE
from toy import seen_in

from trl_entropy import Tokens
from trl_entropy.rules.bonuses import BONUSES
from trl_entropy.rules.looks import looks_among
from trl_entropy.rules.terms import TERMS
from trl_entropy.rules.weights import WEIGHTS


ROWS, PLACES, WORDS = 96, 12, 10


class Table:
    def __init__(self, moved: float):
        generator = torch.Generator().manual_seed(0)
        old = 1.5 * torch.randn(PLACES, WORDS, generator=generator, dtype=torch.float64)
        self.logits = (1 + moved) * old
        old_logps = old.log_softmax(-1)
        self.chosen = torch.multinomial(old_logps.exp(), ROWS, replacement=True, generator=generator).T
        self.old_logps = old_logps.expand(ROWS, -1, -1).gather(-1, self.chosen.unsqueeze(-1)).squeeze(-1)
        self.old_entropies = -(old_logps.exp() * old_logps).sum(-1).expand(ROWS, -1)
        likely = (self.chosen == old.argmax(-1)).double().mean(-1)
        right = (likely > likely.median()).double()
        self.advantages = ((right - right.mean()) / right.std()).unsqueeze(1).expand(-1, PLACES)
        self.rewards = right
        self.group_rewards = right.view(-1, 8).repeat_interleave(8, dim=0)

    def tokens(self, logits: torch.Tensor, looks) -> Tokens:
        logps = logits.log_softmax(-1)
        entropies = -(logps.exp() * logps).sum(-1)
        expected = (logps.exp().square() * (entropies.unsqueeze(-1) + logps)).sum(-1)
        return Tokens(
            logps=logps.expand(ROWS, -1, -1).gather(-1, self.chosen.unsqueeze(-1)).squeeze(-1),
            old_logps=self.old_logps,
            entropies=entropies.expand(ROWS, -1),
            advantages=self.advantages,
            mask=torch.ones(ROWS, PLACES, dtype=torch.bool),
            completions=torch.arange(ROWS) * 1000003,
            old_entropies=self.old_entropies,
            ref_logps=self.old_logps,
            rewards=self.rewards,
            group_rewards=self.group_rewards,
            expected_discriminator=expected.detach().expand(ROWS, -1),
            vocabulary=seen_in(logits.expand(ROWS, -1, -1), self.chosen, looks),
        )

    def entropy_after(self, rule=None, step: float = 1e-2) -> float:
        """Mean entropy over the places after one step along the gradient of the objective."""
        logits = self.logits.clone().requires_grad_()
        tokens = self.tokens(logits, looks_among(rule.needs) if rule else ())
        advantages = tokens.advantages
        name = next((name for name, kind in CATALOGUE.items() if type(rule) is kind), None)
        if name in WEIGHTS:
            advantages = advantages * rule(tokens.detach())
        elif name in BONUSES:
            advantages = advantages + rule(tokens.detach())
        objective = torch.where(tokens.clipped, 0.0, tokens.ratios * advantages.detach()).mean()
        if name in TERMS:
            objective = objective - rule(tokens).mean()
        (gradient,) = torch.autograd.grad(objective, logits)
        moved = (self.logits + step * gradient).log_softmax(-1)
        return -(moved.exp() * moved).sum(-1).mean().item()


ON_POLICY, OFF_POLICY = 0.0, 0.15
CLAIMS = [
    ("aer_entropy", {"coef": 0.1}, ON_POLICY),
    ("sign", {"positive_advantage_coef": 0.5}, ON_POLICY),
    ("confident_sign", {"alpha": -0.5, "threshold": 0.6}, ON_POLICY),
    ("confident_surrogate", {"alpha": -0.5, "threshold": 0.6}, ON_POLICY),
    ("random_positive_clip", {"share": 0.3}, ON_POLICY),
    ("clip_cov", {"share": 0.1, "low": 0.3, "high": 5.0}, ON_POLICY),
    ("clip_b", {"mu": 1.0}, ON_POLICY),
    ("clip_v", {"mu": 1.0, "max_share": 1.0}, ON_POLICY),
    ("kl_cov", {"share": 0.2}, OFF_POLICY),
    ("lp_reg", {"share": 0.3, "kappa": 0.3}, ON_POLICY),
    ("opefo", {}, ON_POLICY),
    ("paec", {"coef": 0.1, "p": 0.95}, ON_POLICY),
    ("siren", {"coef": 0.1, "p": 0.95}, ON_POLICY),
    ("simko", {"alpha": 0.2}, ON_POLICY),
    ("sent", {"coef": 1.0}, OFF_POLICY),
    ("steer", {"floor": 0.5}, ON_POLICY),
    ("repo", {"beta": 0.3}, ON_POLICY),
    ("repo_r", {"zeta": 0.05}, ON_POLICY),
    ("w_reinforce", {}, ON_POLICY),
    ("entropy_ratio", {"beta_low": 0.02, "beta_high": 0.02}, OFF_POLICY),
    ("high_entropy", {"fraction": 0.2}, ON_POLICY),
    ("a3po", {}, ON_POLICY),
    ("pass_k", {}, ON_POLICY),
    ("quantile_advantage", {}, ON_POLICY),
    ("ratio_range", {"epsilon_low": 0.05, "epsilon_high": 0.05}, OFF_POLICY),
]
# No such claim, or none of the first step: what they weight up here are not the tokens that hold entropy
WITHOUT = {
    "asym_grpo": "weights prompts by difficulty, here all much alike",
    "bapo": "widens the clip of TRL, which the table has at 0.2",
    "ce_gppo": "gives clipped tokens their gradient back, whichever way that moves entropy",
    "dppo_kl": "a trust region: what it masks has moved far, whichever way that is",
    "dppo_tv": "a trust region: what it masks has moved far, whichever way that is",
    "differential_smoothing": "keeps right completions apart, and pushes all of them up on the way",
    "entropy_advantage": "encourages uncertain tokens that were right, likely ones among them",
    "future_entropy": "credits tokens before uncertain places, which a table does not connect",
    "max_rl": "weights prompts by difficulty, here all much alike",
    "offline_shaping": "trains on stored solutions, of which a table has none",
    "perplexity": "the paper weights sure completions up, for accuracy",
    "position": "the paper weights late tokens up, for accuracy",
    "pseudo_negative": "gives all of an all-correct group one advantage, which moves nothing to first order",
    "relative_entropy": "weights whole completions, right and wrong alike",
    "sampled_only": "leaves stored solutions out, of which a table has none",
}


def test_every_rule_has_a_claim_or_a_reason():
    assert {name for name, _, _ in CLAIMS} | WITHOUT.keys() == CATALOGUE.keys()
    assert not {name for name, _, _ in CLAIMS} & WITHOUT.keys()


@pytest.mark.parametrize("moved", [ON_POLICY, OFF_POLICY])
def test_plain_step_lowers_entropy(moved):
    table = Table(moved)
    assert table.entropy_after() < table.entropy_after(step=0.0)


@pytest.mark.parametrize(("name", "parameters", "moved"), CLAIMS, ids=[name for name, _, _ in CLAIMS])
def test_step_with_the_rule_leaves_more_entropy(name, parameters, moved):
    table = Table(moved)
    more = table.entropy_after(CATALOGUE[name](**parameters)) - table.entropy_after()
    assert more > 1e-9
