"""The asynchronous trainer against a server on the loopback: TRL's rollout loop, its HTTP client and its training."""

import json

import pytest
import torch
from asynchronous import HAS_ASYNC, SIZE, build_async, on_the_cpu
from datasets import Dataset
from toy import logged
from transformers import AutoTokenizer

from trl_entropy import with_entropy_control
from trl_entropy.families import ASYNC_GRPO


if not HAS_ASYNC:
    pytest.skip("this TRL has no such trainer, or another batch", allow_module_level=True)

from vllm_stand_in import Server, Transfer, Worker


SYNC = ["/pause", "/start_weight_update", "/update_weights", "/finish_weight_update", "/resume"]
CONTROL = {
    "positive_advantage_coef": 0.5,
    "token_weights": {"high_entropy": {"fraction": 0.5}},
    "controllers": {"mine": {"law": "pi", "knob": "epsilon_high", "target_ratio": 1.2, "start_steps": 1, "high": 9.0}},
}


def even(completions, **kwargs) -> list[float]:
    return [float(len(completion[0]["content"]) % 2 == 0) for completion in completions]


class Kept:
    """Mixed in before a trainer with entropy control: keeps the tokens that it measures."""

    def observe(self, tokens, effective):
        super().observe(tokens, effective)
        self.__dict__.setdefault("seen", []).append(tokens)


@pytest.fixture
def run(model_dir, tmp_path, monkeypatch):
    """Train against a server of its own; gives the trainer and the server, which has stopped."""
    on_the_cpu(monkeypatch)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.response_template = {}
    prompts = Dataset.from_dict({"prompt": [[{"role": "user", "content": f"{n}="}] for n in range(16)]})

    def train(resume=None, plain=False, **settings):
        with Server(model_dir) as server:
            loop = {"model_name": model_dir, "dataset": prompts, "reward_funcs": [even], "max_inflight_tasks": 8}
            loop |= {"processing_class": tokenizer, "eos_token_ids": [1], "num_generations": SIZE, "max_tokens": 6}
            of_server = {"worker": Worker(server, **loop), "transfer": Transfer(server)}
            of_server |= {"vllm_server_base_url": server.url, "token_budget": None}
            if not plain:
                settings["trainer_class"] = type(
                    "EntropyKept", (Kept, with_entropy_control(ASYNC_GRPO.trainer_class())), {}
                )
            trainer = build_async(model_dir, tmp_path, plain, **of_server, max_steps=4, **settings)
            trainer.train(resume_from_checkpoint=resume)
        return trainer, server

    return train


@pytest.mark.parametrize("plain", [True, False])
def test_training_against_a_server(run, plain):
    trainer, server = run(plain=plain, **({} if plain else CONTROL))
    assert len(logged(trainer, "loss")) == 4
    assert server.calls == ["/init_weight_transfer_engine", *SYNC * 5]  # before the first step, and after each
    weights = dict(trainer.model.named_parameters())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in server.model.named_parameters())
    assert trainer.args.token_budget == server.longest
    assert all(0 <= reward <= 1 for reward in logged(trainer, "reward"))
    assert len(logged(trainer, "sample/staleness_mean")) == 4
    if plain:
        return
    assert len(set(logged(trainer, "knobs/epsilon_high"))) > 1
    fresh = stale = 0
    for tokens in trainer.seen:
        assert (tokens.staleness >= 0).all()
        assert (tokens.staleness <= trainer.args.max_staleness).all()
        gap = (tokens.logps - tokens.old_logps).abs()
        current = tokens.mask & (tokens.staleness == 0)
        assert (gap[current] < 1e-4).all()  # the server has sampled from this very policy
        fresh += int(current.sum())
        stale += int((tokens.mask & (gap > 1e-3)).sum())
    assert fresh > 0
    assert stale > 0


def test_resumed_run_goes_on(run, tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 2, **CONTROL}
    run(**saved)
    state = json.loads((tmp_path / "checkpoint-2" / "entropy_control.json").read_text())["controllers"]["mine"]
    trainer, server = run(resume=str(tmp_path / "checkpoint-2"), **saved)
    assert len(trainer.seen) == 2
    assert server.calls == ["/init_weight_transfer_engine", *SYNC * 3]
    assert logged(trainer, "knobs/epsilon_high")[2] == state["value"]
