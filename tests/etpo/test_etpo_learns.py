"""From a random policy to one that solves most episodes at the first attempt."""

from statistics import fmean

import pytest
import torch
from given_steps import build_etpo
from toy import logged
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from trl_entropy.etpo import Episodes


class FirstLetter:
    """Right is what begins with one of three of the twenty letters: 1 for it, -1 for others, two attempts."""

    def reset(self, row) -> str:
        self.left = 2
        return row["prompt"]

    def step(self, text: str) -> tuple[str, float, bool]:
        self.left -= 1
        right = text.strip()[:1] in {"3", "7", "+"}
        return "-a", 1.0 if right else -1.0, right or self.left == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")
def test_a_random_policy_learns(model_dir, tmp_path):
    torch.manual_seed(0)
    sizes = {"vocab_size": 22, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.1}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, **ids)).save_pretrained(tmp_path / "policy")
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(tmp_path / "policy")
    settings = {"max_steps": 90, "per_device_train_batch_size": 40, "learning_rate": 5e-3, "max_completion_length": 4}
    settings |= {"beta": 0.05, "polyak": 0.5, "entropy_measures": "none"}
    trainer = build_etpo(str(tmp_path / "policy"), tmp_path, rollout_func=Episodes(FirstLetter), **settings)
    trainer.train()
    scores, attempts = logged(trainer, "reward"), logged(trainer, "env/attempts")
    print([round(fmean(scores[at : at + 10]), 2) for at in range(0, 90, 10)])
    assert fmean(scores[:10]) < -0.8
    assert fmean(scores[-10:]) > 0.5
    assert fmean(attempts[-10:]) < fmean(attempts[:10]) - 0.3
