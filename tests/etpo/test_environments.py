"""Episodes of an environment: what TRL gets of them, as a rollout_func and as a tool, under both trainers."""

from functools import partial

import pytest
from given_steps import build_etpo, of_policy
from toy import build_trainer, fresh_logps, logged, number
from trl import GRPOTrainer

from trl_entropy import EntropyGRPOTrainer
from trl_entropy.data import EMBEDDED_POLICY
from trl_entropy.etpo import Arithmetic, Episodes, environment_score
from trl_entropy.etpo.environments import rewards_of_calls


pytestmark = pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")


class Digits:
    """Tells two tokens, until an answer has a digit of 5 or more, or none is left."""

    def __init__(self, told: str = "f-", last: str = "a"):
        self.told, self.last = told, last

    def reset(self, row) -> str:
        self.left = 2 + number(row["prompt"]) % 2
        return row["prompt"]

    def step(self, text: str) -> tuple[str, float, bool]:
        self.left -= 1
        right = is_right(text)
        done = right or self.left == 0
        return self.last if done else self.told, 1.0 if right else -0.5, done


def is_right(text: str) -> bool:
    return any(digit in text for digit in "56789")


@pytest.fixture
def build(model_dir, tmp_path):
    def make(environment=Digits, **settings):
        return build_etpo(model_dir, tmp_path, rollout_func=Episodes(environment), max_completion_length=3, **settings)

    return make


def test_batch_is_that_of_the_episodes(build):
    trainer = build(max_steps=1, learning_rate=0.0)
    seen = []
    prepared, trainer.prepared_batch = trainer.prepared_batch, lambda *given: seen.append(given) or prepared(*given)
    trainer.train()
    ((batch, rewards),) = seen
    mask, tokenizer = of_policy(batch), trainer.processing_class
    answered = 0
    for row in range(8):
        prompt = tokenizer.decode(batch["prompt_ids"][row], skip_special_tokens=True).replace(" ", "")
        own, left, place, expected = mask[row].tolist(), 2 + number(prompt) % 2, 0, [0.0] * mask.shape[1]
        ids = batch["completion_ids"][row].tolist()
        for _ in range(left):  # walk the episode again
            start = place
            while place < len(own) and own[place] and place - start < 3:
                place += 1
            left -= 1
            right = is_right(tokenizer.decode(ids[start:place]))
            expected[place - 1] = 1.0 if right else -0.5
            if right or left == 0:
                break
            assert tokenizer.convert_ids_to_tokens(ids[place : place + 2]) == ["f", "-"]
            assert own[place : place + 2] == [False, False]
            answered, place = answered + 1, place + 2
        assert rewards[row].tolist() == expected
        assert not any(own[place:])
    assert answered > 1
    assert logged(trainer, "env/attempts") == [pytest.approx(1 + answered / 8)]
    assert logged(trainer, "reward") == [pytest.approx(rewards.sum(1).mean().item())]


def test_an_environment_that_tells_nothing_is_refused(build):
    with pytest.raises(ValueError, match=r"the environment answered '' between two actions, which has no token"):
        build(partial(Digits, told=""), max_steps=1).train()


def test_slow_steps_are_taken_together(build):
    sizes = []

    class Together(Digits):
        @staticmethod
        def step_together(environments, texts):
            sizes.append(len(environments))
            return [environment.step(text) for environment, text in zip(environments, texts, strict=True)]

    trainer = build(Together, max_steps=1, learning_rate=0.0)
    trainer.train()
    assert sizes[0] == 8
    assert sum(sizes) == pytest.approx(8 * logged(trainer, "env/attempts")[0])
    alone = build(max_steps=1, learning_rate=0.0)
    alone.train()
    assert logged(alone, "reward") == logged(trainer, "reward")


EVERYTHING = {
    "token_weights": {"confident_sign": {"alpha": 0.3}, "high_entropy": {"fraction": 0.5}},
    "loss_terms": {"kl_cov": {"share": 0.3}},
    "entropy_target": 1.0,
    "controllers": {"hold": {"law": "pi", "knob": "entropy_coef", "kp": 0.1, "ki": 0.1, "low": -1.0, "high": 1.0}},
    "entropy_measures": "full",
    "learning_rate": 0.0,
    "max_steps": 2,
}


def test_grpo_with_entropy_control_sees_the_tokens_of_the_policy_alone(tmp_path):
    trainer = build_trainer(
        *(str(EMBEDDED_POLICY), Arithmetic.dataset(), tmp_path),
        rollout_func=Episodes(Arithmetic),
        reward_funcs=environment_score,
        max_completion_length=12,
        **EVERYTHING,
    )
    seen, observe = [], trainer.observe
    trainer.observe = lambda tokens, effective: (seen.append((tokens, effective)), observe(tokens, effective))
    trainer.train()
    assert type(trainer) is EntropyGRPOTrainer
    tokens, effective = seen[-1]
    told = trainer._buffered_inputs[0]["completion_mask"].bool() & ~tokens.mask
    assert told.sum() >= 4
    raw = fresh_logps(trainer, trainer._buffered_inputs[0])
    assert raw[told].mean() < raw[tokens.mask].mean() - 2  # wild
    assert not effective[told].any()
    last, count = trainer.measures.last, tokens.mask.sum().item()
    assert last["entropy"] == pytest.approx(tokens.entropies[tokens.mask].mean().item(), abs=1e-5)
    assert last["entropy"] != pytest.approx(tokens.entropies[tokens.mask | told].mean().item(), abs=1e-3)
    assert last["token_weights/high_entropy/share"] == pytest.approx(0.5, abs=1 / count)
    assert trainer.controllers[0].error == pytest.approx(1.0 - last["entropy"])


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(r"\boxed{7+17}", 1.0, True, "=2424=")], 24),
        ([(r"\boxed{7+18}", -1.0, False, "=2524="), (r"x\boxed{24}", 1.0, True, "=2424=")], 24),
        ([(r"7+17", -1.0, False, "=24="), (r"\boxed{}", -1.0, True, "=24=")], 24),
        ([(r"\boxed{1+1}\boxed{3+4+5}", 1.0, True, "=1212=")], 12),
    ],
)
def test_arithmetic_by_hand(steps, expected):
    environment = Arithmetic()
    assert environment.reset({"prompt": f"{expected}=", "solution": f"${expected}$"}) == f"{expected}="
    for text, reward, done, told in steps:
        assert environment.step(text) == (told, reward, done)


def test_embedded_policy_has_a_second_attempt(tmp_path):
    settings = {"max_completion_length": 12, "max_steps": 1, "learning_rate": 0.0}
    trainer = build_etpo(
        *(str(EMBEDDED_POLICY), tmp_path, Arithmetic.dataset()), rollout_func=Episodes(Arithmetic), **settings
    )
    trainer.train()
    assert 1 < logged(trainer, "env/attempts")[0] < 2
    batch = trainer._buffered_inputs[0]
    texts = trainer.processing_class.batch_decode(batch["completion_ids"], skip_special_tokens=True)
    second = [text for text, row in zip(texts, of_policy(batch), strict=True) if not row[: len(text)].all()]
    assert any(text.count("boxed") == 2 for text in texts)
    assert len(second) > 1


# As a tool


CALL = {"function": {"name": "submit", "arguments": {"text": "x"}}}


@pytest.mark.parametrize(
    ("calls", "rewards", "expected"),
    [
        ([[CALL], [CALL], []], [-1.0, 0.5], [0, -1, 0, 0, 0.5, 0, 0]),
        ([[CALL, CALL], [], [CALL]], [-1.0, -0.5, 0.5], [0, -1.5, 0, 0, 0, 0, 0.5]),
        # of a wrong argument and of another tool the environment has seen nothing
        ([[{"function": {"name": "submit", "arguments": {"txt": "x"}}}], [CALL], []], [0.5], [0, 0, 0, 0, 0.5, 0, 0]),
        ([[{"function": {"name": "other", "arguments": {"text": "x"}}}], [CALL], []], [0.5], [0, 0, 0, 0, 0.5, 0, 0]),
    ],
)
def test_rewards_of_turns_by_hand(calls, rewards, expected):
    mask = [1, 1, 0, 1, 1, 0, 1]
    messages = []
    for made in calls:
        messages += [{"role": "assistant", "tool_calls": made}, *({"role": "tool"} for _ in made)]
    assert rewards_of_calls(mask, messages, rewards) == expected


def test_config_of_etpo_is_for_its_trainer(model_dir, build):
    args, dataset = build().args, build().train_dataset
    with pytest.raises(TypeError, match=r"args must be an EntropyGRPOConfig"):
        EntropyGRPOTrainer(model_dir, environment_score, args=args, train_dataset=dataset)
    with pytest.raises(TypeError, match=r"an EtpoConfig needs an EtpoTrainer: GRPOTrainer would not read its flags"):
        GRPOTrainer(model_dir, environment_score, args=args, train_dataset=dataset)
