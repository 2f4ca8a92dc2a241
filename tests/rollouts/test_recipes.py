"""The recipes of the rollout rules, and of the token rules that go with them, on the embedded policy."""

from pathlib import Path

import pytest

from trl_entropy.commands.grpo import build_trainer, prepare


RECIPES = Path(__file__).parents[2] / "recipes"
LOGGED = {
    "curriculum": "rollout/stage",
    "dynamic_sampling": "rollout/groups_kept",
    "offline_injection": "rollout/injected",
    "offline_shaping": "loss_terms/offline_shaping/mean",
    "perplexity_window": "rollout/perplexity",
    "prompt_temperature": "rollout/temperature",
    "pseudo_negative": "advantage_bonuses/pseudo_negative/mean",
    "sampled_only": "token_weights/sampled_only/mean",
}


@pytest.mark.parametrize("name", LOGGED)
def test_recipe_trains(name, tmp_path):
    more = ["--max_steps", "2", "--output_dir", str(tmp_path), "--disable_tqdm", "true"]
    trainer = build_trainer(prepare(["--config", str(RECIPES / f"{name}.yaml"), *more]))
    trainer.train()
    assert trainer.state.global_step == 2
    assert LOGGED[name] in set().union(*trainer.state.log_history)
    if name == "offline_injection":
        injected = [row["rollout/injected"] for row in trainer.state.log_history if "rollout/injected" in row]
        assert max(injected) > 0  # the embedded problems have solutions, and some groups need one
