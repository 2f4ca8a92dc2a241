"""What the seam relies on in TRL, each promise by its name. Where TRL breaks one, the test of that name fails."""

import inspect
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from toy import LOSS_TYPES, build_trainer, even_length
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.trainer import grpo_trainer

from trl_entropy._seam import set_temperature
from trl_entropy._seam.advantages import TokenAdvantages
from trl_entropy._seam.means import OVER_TOKENS, micro_batch_mean
from trl_entropy._seam.state import _fused_temperature
from trl_entropy.families import UNCLIPPED, family_of


os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

from trl.experimental.gmpo import GMPOConfig, GMPOTrainer


CONFIGS = {GRPOTrainer: GRPOConfig, RLOOTrainer: RLOOConfig, GMPOTrainer: GMPOConfig}
SIZES = {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "max_steps": 2}


def reward(completions, log_extra, log_metric, **kwargs) -> list[float]:
    log_extra("length", [len(completion) for completion in completions])
    log_metric("completions", float(len(completions)))
    return even_length(completions)


class Watched(dict):
    """A batch that notes when its advantages are read."""

    def __getitem__(self, key):
        if key == "advantages":
            self.events.append("advantages")
        return super().__getitem__(key)


class Spy:
    """Mixed in before a trainer of TRL: keeps what it does in training, and changes nothing."""

    trained = False

    def __init__(self, *args, **kwargs):
        config, self.asked = kwargs["args"], []
        config.get_process_log_level = partial(self._ask, config)
        super().__init__(*args, **kwargs)
        del config.get_process_log_level  # it cannot be saved
        self.losses, self.forwards, self.rollouts, self.rewards, self.steps = [], [], [], [], []
        self.saved, self.loaded = [], []
        self.events = None

    def _ask(self, config):
        self.asked.append(inspect.currentframe().f_back.f_locals.get("self"))
        return type(config).get_process_log_level(config)

    def _get_per_token_logps_and_entropies(self, model, *args, **kwargs):
        outputs = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        if self.events is None:
            self.forwards.append((model, outputs))
        else:
            self.events.append("forward")
            self.outputs = outputs
        return outputs

    def _compute_loss(self, model, inputs):
        watched = Watched(inputs)
        watched.events = self.events = []
        waiting = getattr(self, "_buffered_inputs", None), getattr(self, "_step", None)
        before = len(self._metrics["train"]["entropy"])
        loss = super()._compute_loss(model, watched)
        entropies = len(self._metrics["train"]["entropy"]) - before
        if not self.trained:
            self.losses.append((inputs, self.events, self.outputs, waiting, entropies, loss.detach()))
        self.events = None
        return loss

    def training_step(self, *args, **kwargs):
        self.steps.append(super().training_step(*args, **kwargs))
        return self.steps[-1]

    def _generate_and_score_completions(self, inputs):
        self.forwards = []
        batch = super()._generate_and_score_completions(inputs)
        self.rollouts.append((inputs, batch, self.forwards))
        return batch

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids):
        values = super()._calculate_rewards(inputs, prompts, completions, completion_ids)
        notes = dict(getattr(self, "_pending_extra_logs", {})), dict(getattr(self, "_pending_metrics", {}))
        self.rewards.append((inputs, prompts, completions, completion_ids, values, notes))
        return values

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        self.saved.append(self.state.global_step)

    def _load_optimizer_and_scheduler(self, checkpoint):
        self.loaded.append(checkpoint)
        super()._load_optimizer_and_scheduler(checkpoint)


def trainer_of(trl: type, model_dir: str, dataset, folder: Path, resume: bool):
    """A trainer that has trained for two optimizer steps, with a spy before it; `resume` for one that resumed it."""
    made = type("Spied", (Spy, trl), {})
    config = next(
        config for of, config in CONFIGS.items() if of in trl.__mro__[::-1] and family_of(of) is family_of(trl)
    )
    settings = {**SIZES, "save_strategy": "steps", "save_steps": 1 if resume else 2}
    settings |= {"trainer_class": made, "config_class": config, "reward_funcs": reward}
    trainer = build_trainer(model_dir, dataset, folder, **settings)
    trainer.train()
    if resume:
        trainer = build_trainer(model_dir, dataset, folder, **settings)
        trainer.train(resume_from_checkpoint=str(folder / "checkpoint-1"))
    trainer.trained = True
    return trainer


PROMISES: dict[str, Callable] = {}


def promise(check: Callable) -> Callable:
    PROMISES[check.__name__] = check
    return check


def keep(name: str, trainer, promises: dict[str, Callable] = PROMISES) -> None:
    """Raise `AssertionError` with the name of the promise if this trainer breaks it."""
    try:
        promises[name](trainer)
    except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise AssertionError(f"TRL no longer keeps {name}: {promises[name].__doc__} ({error!r})") from error


def off_policy(trainer) -> dict:
    """A batch of the run whose ratios are far from 1."""
    inputs = dict(trainer.losses[0][0])
    noise = torch.randn(inputs["completion_ids"].shape, generator=torch.Generator().manual_seed(0))
    for name in {"old_per_token_logps", "old_logps"} & inputs.keys():
        inputs[name] = inputs[name] + (noise if inputs[name].dim() == 2 else noise[:, 0])
    return inputs


def loss_of(trainer, inputs: dict) -> torch.Tensor:
    return trainer._compute_loss(trainer.model, inputs).detach()


@promise
def asks_for_log_level(trainer):
    """`__init__` asks the config for `get_process_log_level()`."""
    assert any(asking is trainer for asking in trainer.asked)


@promise
def forward_before_advantages(trainer):
    """`_compute_loss` calls `_get_per_token_logps_and_entropies` before it reads advantages."""
    assert len(trainer.losses) == 4
    for _, events, *_ in trainer.losses:
        if "advantages" in events:
            assert events.index("forward") < events.index("advantages")


@promise
def advantages_by_key(trainer):
    """`_compute_loss` reads advantages as `inputs["advantages"]`."""
    assert all("advantages" in events for _, events, *_ in trainer.losses)


@promise
def advantages_per_token(trainer):
    """`GRPOTrainer` takes advantages `(B, T)`, or adds the dimension of the tokens to those of a completion."""
    if not family_of(type(trainer)).per_token:
        return
    inputs = off_policy(trainer)
    repeated = inputs["advantages"].unsqueeze(1).expand_as(inputs["completion_ids"]).as_subclass(TokenAdvantages)
    assert torch.equal(loss_of(trainer, inputs | {"advantages": repeated}), loss_of(trainer, inputs))


@promise
def forward_tuple(trainer):
    """The forward returns a tuple that begins with log-probs and entropies, `(B, T)`, the first with a gradient."""
    for inputs, _, outputs, *_ in trainer.losses:
        logps, entropies = outputs[0], outputs[1]
        mask = inputs["completion_mask"].bool()
        assert logps.shape == entropies.shape == mask.shape
        assert logps.requires_grad
        assert (logps[mask] <= 0).all()
        assert (entropies[mask] > 0).all()


@promise
def batch_columns(trainer):
    """The batch has ids and masks, and the tokens and old log-probs that the trainer's family says."""
    family, (rows, batch, *_) = family_of(type(trainer)), trainer.rollouts[0]
    for part in ("prompt", "completion"):
        assert batch[f"{part}_ids"].shape == batch[f"{part}_mask"].shape
    assert batch["advantages"].shape == (len(rows),)
    if family.keeps_old_logps:
        assert batch["old_per_token_logps"].shape == batch["completion_ids"].shape
        assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
    else:
        assert batch["old_logps"].shape == (len(rows),)
        assert "num_items_in_batch" not in batch


@promise
def old_log_probs_first(trainer):
    """`RLOOTrainer` scores the completions by `self.model` first, and sums that over the mask into `old_logps`."""
    if family_of(type(trainer)).keeps_old_logps:
        return
    for _, batch, forwards in trainer.rollouts:
        model, outputs = forwards[0]
        assert model is trainer.model
        assert torch.equal((outputs[0] * batch["completion_mask"]).sum(1), batch["old_logps"])


@promise
def bounds_at_every_loss(trainer):
    """The clip range is read from `self.epsilon_low` and `self.epsilon_high` at every loss."""
    inputs, before = off_policy(trainer), loss_of(trainer, off_policy(trainer))
    for name in ("epsilon_low", "epsilon_high"):
        value = getattr(trainer, name)
        setattr(trainer, name, 0.01)
        assert not torch.equal(loss_of(trainer, inputs), before)
        setattr(trainer, name, value)
    assert torch.equal(loss_of(trainer, inputs), before)


@promise
def entropy_bonus_switch(trainer):
    """`GRPOTrainer` reads its bonus from `self.entropy_coef` once `self._entropy_bonus_enabled` is set."""
    if "entropy_coef" in family_of(type(trainer)).lacks:
        return
    inputs, before = off_policy(trainer), loss_of(trainer, off_policy(trainer))
    assert trainer._entropy_bonus_enabled is False
    trainer.entropy_coef, trainer._entropy_bonus_enabled = 0.1, True
    bonus = before - loss_of(trainer, inputs)
    trainer.entropy_coef, trainer._entropy_bonus_enabled = 0.0, False
    mask, entropies = inputs["completion_mask"].bool(), trainer.outputs[1].detach()
    # of one of the two micro-batches
    torch.testing.assert_close(bonus, 0.1 * entropies[mask].mean() / 2, rtol=1e-4, atol=1e-6)


@promise
def loss_scale(trainer):
    """A loss is divided by the micro-batches of a step: by the trainer or, for `RLOOTrainer`, by transformers."""
    by_transformers = 1 if family_of(type(trainer)).scales_loss else 2
    assert len(trainer.steps) == 4
    for returned, (*_, loss) in zip(trainer.steps, trainer.losses, strict=True):
        assert torch.equal(returned, loss / by_transformers)


@promise
def mean_over_tokens(trainer):
    """`_compute_loss` averages the losses of tokens by `loss_type` as `micro_batch_mean` does, at a ratio of 1."""
    family, inputs = family_of(type(trainer)), dict(trainer.losses[0][0])
    loss_of(trainer, inputs)
    logps, mask = trainer.outputs[0].detach(), inputs["completion_mask"].bool()
    inputs |= {"old_per_token_logps": logps, "old_logps": (logps * mask).sum(1)}
    as_given, of_micro_batches = getattr(trainer.args, "loss_type", None), 2
    clipped = [name for name in LOSS_TYPES if name not in UNCLIPPED]
    try:
        for loss_type in clipped if family.has_loss_types else [family.loss_type]:
            trainer.loss_type = loss_type
            (slopes,) = torch.autograd.grad(trainer._compute_loss(trainer.model, inputs), trainer.outputs[0])
            losses = torch.where(mask, -inputs["advantages"].unsqueeze(1), 0.0)
            if loss_type in OVER_TOKENS:
                scale = 4 / inputs["num_items_in_batch"]  # of the rollout, which has four micro-batches
            else:
                (scale,) = torch.autograd.grad(
                    micro_batch_mean(loss_type, ones := torch.ones_like(losses, requires_grad=True), mask, 6), ones
                )
            expected = losses * scale / (of_micro_batches if family.scales_loss else 1)
            torch.testing.assert_close(slopes, expected, rtol=1e-5, atol=1e-7)
            assert slopes.any()
    finally:
        trainer.loss_type = as_given


@promise
def buffered_inputs(trainer):
    """The micro-batches of a rollout wait in `_buffered_inputs`, in the order in which `_step` goes through them."""
    for inputs, _, _, (waiting, step), *_ in trainer.losses:
        assert len(waiting) == 4
        assert waiting[step % 4]["completion_ids"] is inputs["completion_ids"]


@promise
def step_counts_micro_batches(trainer):
    """`_step` is the number of micro-batches that were trained on; a rollout begins at each multiple of its size."""
    assert [step for _, _, _, (_, step), *_ in trainer.losses] == [0, 1, 2, 3]
    assert trainer._step == 4
    assert len(trainer.rollouts) == 1


@promise
def rows_in_groups(trainer):
    """`RepeatSampler` repeats each problem `num_generations` times in a row, different ones after one another."""
    for rows, *_ in trainer.rollouts:
        prompts = [row["prompt"] for row in rows]
        assert len(prompts) == 32
        assert prompts == [prompt for prompt in prompts[::4] for _ in range(4)]
        assert len(set(prompts)) == 8


@promise
def rollout_before_shuffle(trainer):
    """`_generate_and_score_completions` returns its rows in the order in which it got them; shuffled is what waits."""
    tokenizer = trainer.processing_class
    for rows, batch, *_ in trainer.rollouts:
        prompts = tokenizer.batch_decode(batch["prompt_ids"], skip_special_tokens=True)
        assert prompts == [row["prompt"] for row in rows]
    waiting = torch.cat([inputs["prompt_ids"] for inputs, *_ in trainer.losses])
    assert not torch.equal(waiting, trainer.rollouts[0][1]["prompt_ids"])


@promise
def rewards_in_rows(trainer):
    """`_calculate_rewards(inputs, prompts, completions, completion_ids)` gives `(rows, rewards)`, row by row."""
    for rows, prompts, completions, ids, values, _ in trainer.rewards:
        assert prompts == [row["prompt"] for row in rows]
        assert values.flatten().tolist() == even_length(completions)
        assert trainer.processing_class.batch_decode(ids, skip_special_tokens=True) == completions


@promise
def pending_logs(trainer):
    """What rewards log waits in `_pending_extra_logs` and `_pending_metrics` until the rollout is scored."""
    for _, _, completions, _, _, (extra, metrics) in trainer.rewards:
        assert extra == {"length": [len(completion) for completion in completions]}
        assert metrics == {"completions": [float(len(completions))]}
    assert (trainer._pending_extra_logs, trainer._pending_metrics) == ({}, {})


@promise
def logged_entropy(trainer):
    """`_metrics["train"]["entropy"]` gets one value at every loss of training."""
    assert [entropies for *_, entropies, _ in trainer.losses] == [1, 1, 1, 1]


@promise
def scores_at_temperature(trainer):
    """Log-probs are those at `self.temperature`, or at that of the fused LM head, which its closure holds."""
    if hasattr(grpo_trainer, "add_fused_lm_head"):
        assert _fused_temperature(trainer.model).cell_contents == 1.0
    inputs = trainer.losses[0][0]
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    length = inputs["completion_ids"].shape[1]
    set_temperature(trainer, 0.5)
    with torch.no_grad():
        logps = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, length)[0]
        logits = trainer.model(input_ids=ids, attention_mask=mask).logits[:, -length - 1 : -1]
    set_temperature(trainer, 1.0)
    expected = (logits / 0.5).log_softmax(-1).gather(-1, ids[:, -length:].unsqueeze(-1)).squeeze(-1)
    trained = inputs["completion_mask"].bool()
    torch.testing.assert_close(logps[trained], expected[trained], rtol=0, atol=1e-5)


@promise
def generate_tuple(trainer):
    """
    `GRPOTrainer._generate(prompts)` gives a tuple with ids second, what an environment wrote third, completions fourth
    and log-probs fifth.
    """
    if "acts.completions" in family_of(type(trainer)).lacks:
        return
    outputs = trainer._generate(["1=", "2=", "3=", "4="])
    assert len(outputs[1]) == 4
    assert all(isinstance(token, int) for ids in outputs[1] for token in ids)
    assert outputs[2] is None  # there is no environment
    assert outputs[3] == trainer.processing_class.batch_decode(outputs[1], skip_special_tokens=True)
    assert outputs[4] is None  # nobody has taken log-probs


@promise
def tokenize_prompts(trainer):
    """`_tokenize_prompts(prompts)` gives the ids of each prompt first, not padded."""
    assert trainer._tokenize_prompts(["1=", "15="])[0] == [
        trainer.processing_class(text)["input_ids"] for text in ("1=", "15=")
    ]


@promise
def checkpoint_hooks(trainer):
    """Checkpoints pass through `_save_checkpoint(model, trial)` and `_load_optimizer_and_scheduler(checkpoint)`."""
    folder = Path(trainer.args.output_dir)
    assert trainer.saved == [2]
    assert trainer.loaded == [str(folder / "checkpoint-1")]
    assert (folder / "checkpoint-2").is_dir()


RESUMED = {"checkpoint_hooks"}


@pytest.fixture(scope="module")
def trained(model_dir, dataset, tmp_path_factory):
    """A trainer that was spied upon, of each class once."""
    made = {}

    def make(trl: type, resume: bool):
        if (trl, resume) not in made:
            made[trl, resume] = trainer_of(trl, model_dir, dataset, tmp_path_factory.mktemp("spied"), resume)
        return made[trl, resume]

    return make


@pytest.mark.parametrize("name", PROMISES)
@pytest.mark.parametrize("trl", CONFIGS)
def test_promise_is_kept(trained, trl, name):
    keep(name, trained(trl, name in RESUMED))


# A TRL that breaks one promise


class AdvantagesFirst(GRPOTrainer):
    def _compute_loss(self, model, inputs):
        inputs["advantages"]
        return super()._compute_loss(model, inputs)


class AdvantagesOfCopy(GRPOTrainer):
    def _compute_loss(self, model, inputs):
        return super()._compute_loss(model, dict(inputs))


class OneAdvantageEach(GRPOTrainer):
    def _compute_loss(self, model, inputs):
        if inputs["advantages"].dim() == 2:
            inputs = {**inputs, "advantages": inputs["advantages"].sum(1)}
        return super()._compute_loss(model, inputs)


class Probabilities(GRPOTrainer):
    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        logps, *rest = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        return (logps.exp(), *rest)


class OtherTokens(GRPOTrainer):
    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        return batch | {"num_items_in_batch": batch["num_items_in_batch"] + 1}


class OtherSums(RLOOTrainer):
    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        return batch | {"old_logps": batch["old_logps"] / batch["completion_mask"].sum(1)}


class FixedBounds(GRPOTrainer):
    epsilon_low = epsilon_high = property(lambda self: 0.2, lambda self, value: None)


class NoSwitch(GRPOTrainer):
    _entropy_bonus_enabled = property(lambda self: False, lambda self, value: None)


class ScaledTwice(GRPOTrainer):
    def training_step(self, *args, **kwargs):
        return super().training_step(*args, **kwargs) / 2


class OneMean(GRPOTrainer):
    def _compute_loss(self, model, inputs):
        given, self.loss_type = self.loss_type, "dapo"
        try:
            return super()._compute_loss(model, inputs)
        finally:
            self.loss_type = given


class OtherMicroBatch(GRPOTrainer):
    def _prepare_inputs(self, generation_batch):
        super()._prepare_inputs(generation_batch)
        return self._buffered_inputs[(self._step + 1) % 4]


class StepsOfOptimizer(GRPOTrainer):
    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        if self._step % 2:
            self._step -= 1
        return loss


class Interleaved(GRPOTrainer):
    def _prepare_inputs(self, generation_batch):
        return super()._prepare_inputs(generation_batch[::2] + generation_batch[1::2])


class Flipped(GRPOTrainer):
    def _generate_and_score_completions(self, inputs):
        batch = super()._generate_and_score_completions(inputs)
        return {name: value.flip(0) if value.dim() else value for name, value in batch.items()}


class FlippedRewards(GRPOTrainer):
    def _calculate_rewards(self, *args, **kwargs):
        return 1 - super()._calculate_rewards(*args, **kwargs)


class LoggedAtOnce(GRPOTrainer):
    def _log_completion_extra(self, column, values):
        self._logs["extra"][column].extend(values)


class EntropyElsewhere(GRPOTrainer):
    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        self._metrics["train"]["mean_entropy"].append(self._metrics["train"]["entropy"].pop())
        return loss


class OwnTemperature(GRPOTrainer):
    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        temperature = self.temperature
        set_temperature(self, 1.0)
        outputs = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        set_temperature(self, temperature)
        return outputs


class HiddenTemperature(GRPOTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.model.forward = type(self.model).forward.__get__(self.model)


class MoreFirst(GRPOTrainer):
    def _generate(self, prompts):
        outputs = super()._generate(prompts)
        return (prompts, *outputs) if self.trained else outputs


class PaddedPrompts(GRPOTrainer):
    def _tokenize_prompts(self, prompts):
        ids, *rest = super()._tokenize_prompts(prompts)
        longest = max(len(row) for row in ids)
        return ([[0] * (longest - len(row)) + row for row in ids], *rest) if self.trained else (ids, *rest)


class CheckpointElsewhere(GRPOTrainer):
    def train(self, resume_from_checkpoint=None):
        return super().train()


class NeverAsks(GRPOTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.asked.clear()


BROKEN = {
    "asks_for_log_level": [NeverAsks],
    "forward_before_advantages": [AdvantagesFirst],
    "advantages_by_key": [AdvantagesOfCopy],
    "advantages_per_token": [OneAdvantageEach],
    "forward_tuple": [Probabilities],
    "batch_columns": [OtherTokens],
    "old_log_probs_first": [OtherSums],
    "bounds_at_every_loss": [FixedBounds],
    "entropy_bonus_switch": [NoSwitch],
    "loss_scale": [ScaledTwice],
    "mean_over_tokens": [OneMean],
    "buffered_inputs": [OtherMicroBatch],
    "step_counts_micro_batches": [StepsOfOptimizer],
    "rows_in_groups": [Interleaved],
    "rollout_before_shuffle": [Flipped],
    "rewards_in_rows": [FlippedRewards],
    "pending_logs": [LoggedAtOnce],
    "logged_entropy": [EntropyElsewhere],
    "scores_at_temperature": [OwnTemperature],
    "generate_tuple": [MoreFirst],
    "tokenize_prompts": [PaddedPrompts],
    "checkpoint_hooks": [CheckpointElsewhere],
}


@pytest.mark.parametrize(("name", "trl"), [(name, trl) for name, classes in BROKEN.items() for trl in classes])
def test_broken_promise_is_named(trained, name, trl):
    with pytest.raises(AssertionError, match=f"^TRL no longer keeps {name}: "):
        keep(name, trained(trl, name in RESUMED))


@pytest.mark.skipif(not hasattr(grpo_trainer, "add_fused_lm_head"), reason="this TRL divides the logits itself")
def test_temperature_that_is_not_found_is_named(model_dir, dataset, tmp_path):
    trainer = build_trainer(
        model_dir, dataset, tmp_path, trainer_class=HiddenTemperature, config_class=GRPOConfig, **SIZES
    )
    with pytest.raises(AssertionError, match="^TRL no longer keeps scores_at_temperature: .*SeamError"):
        keep("scores_at_temperature", trainer)


def test_every_promise_can_be_broken_and_stands_in_the_architecture():
    assert BROKEN.keys() == PROMISES.keys()
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    assert [name for name in PROMISES if f"`{name}`" not in text] == []
