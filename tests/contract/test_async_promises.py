"""What the seam relies on in TRL's asynchronous trainer, each promise by its name."""

from collections.abc import Callable
from copy import copy
from pathlib import Path

import pytest
import torch
from asynchronous import HAS_ASYNC, build_async, on_the_cpu
from test_promises import keep

from trl_entropy.families import ASYNC_GRPO


if not HAS_ASYNC:
    pytest.skip("this TRL has no such trainer, or another batch", allow_module_level=True)

AsyncGRPOTrainer = ASYNC_GRPO.trainer_class()


class Selected:
    """Advantages that note what is selected of them, and hand out a tensor that is changed after the forward."""

    def __init__(self, raw, events, factor):
        self.raw, self.events, self.factor, self.out = raw, events, factor, None

    def __getitem__(self, selected):
        self.events.append("advantages")
        self.out = self.raw[selected].clone()
        return self.out

    def change(self):
        if self.out is not None:
            self.out.mul_(self.factor)


class Spy:
    """Mixed in before TRL's trainer: keeps what it does in training, and changes nothing."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.losses, self.steps, self.rows, self.saved, self.loaded = [], [], [], [], []

    def compute_loss(self, model, inputs, **kwargs):
        before = len(self._metrics["train"]["entropy"])
        loss, outputs, _ = loss_of(super().compute_loss, model, inputs)
        entropies = len(self._metrics["train"]["entropy"]) - before
        self.losses.append((inputs, outputs, entropies, self.model_version, loss.detach()))
        return loss

    def get_batch_samples(self, *args, **kwargs):
        found = super().get_batch_samples(*args, **kwargs)
        self.steps.append((len(self.losses), list(found[0])))
        return found

    def get_train_dataloader(self):
        loader = super().get_train_dataloader()
        inner = loader.base_dataloader
        collate = inner.collate_fn

        def kept(examples):
            self.rows.append(examples)
            return collate(examples)

        inner.collate_fn = kept
        return loader

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        self.saved.append(self.state.global_step)

    def _load_optimizer_and_scheduler(self, checkpoint):
        self.loaded.append(checkpoint)
        super()._load_optimizer_and_scheduler(checkpoint)


def loss_of(compute_loss: Callable, model, inputs: dict, factor: float = 1.0):
    """A loss, what its forward gave, and in which order what was read; advantages change after the forward."""
    events, kept = [], []
    lent = Selected(inputs["advantages"], events, factor)

    def forward_ends(module, args, outputs):
        events.append("forward")
        kept.append(outputs)
        lent.change()

    hook = model.register_forward_hook(forward_ends)
    try:
        loss = compute_loss(model, {**inputs, "advantages": lent})
    finally:
        hook.remove()
    return loss, kept, events


def own_loss(trainer, inputs: dict) -> torch.Tensor:
    return super(Spy, trainer).compute_loss(trainer.model, inputs).detach()


def flat(inputs: dict, outputs) -> dict[str, torch.Tensor]:
    """What the loss is made of, token by token."""
    selected = inputs["token_index"] >= 0
    index = inputs["token_index"][selected]
    return {
        "logps": outputs.log_probs.flatten()[index],
        "entropies": outputs.entropy.flatten()[index],
        "places": inputs["position_ids"][inputs["attention_mask"].bool()][index],
        **{name: inputs[name][selected] for name in ("segment_id", "old_log_probs", "advantages")},
    }


def trained_one(folder: Path, model_dir: str, trl: type, resume: bool):
    made = type("Spied", (Spy, trl), {})
    settings = {"trainer_class": made, "plain": True, "gradient_accumulation_steps": 2, "max_steps": 2}
    settings |= {"save_strategy": "steps", "save_steps": 1 if resume else 2}
    trainer = build_async(model_dir, folder, **settings)
    trainer.train()
    if resume:
        trainer = build_async(model_dir, folder, **settings)
        trainer.train(resume_from_checkpoint=str(folder / "checkpoint-1"))
    return trainer


PROMISES: dict[str, Callable] = {}


def promise(check: Callable) -> Callable:
    PROMISES[check.__name__] = check
    return check


@promise
def advantages_selected(trainer):
    """`compute_loss` selects `inputs["advantages"][...]` once, and takes its loss of that tensor after the forward."""
    inputs = trainer.losses[0][0]
    compute = super(Spy, trainer).compute_loss
    loss, _, events = loss_of(compute, trainer.model, inputs)
    assert sorted(events) == ["advantages", "forward"]
    assert torch.equal(loss, compute(trainer.model, inputs))
    doubled, *_ = loss_of(compute, trainer.model, inputs, factor=2.0)
    assert loss != 0
    assert torch.equal(doubled, 2 * loss)


@promise
def outputs_by_place(trainer):
    """It calls `model(...)` once, which gives `log_probs` and `entropy` of every place, with their gradients."""
    for inputs, outputs, *_ in trainer.losses:
        (found,) = outputs
        values = flat(inputs, found)
        assert found.log_probs.numel() == found.entropy.numel() == int(inputs["attention_mask"].sum())
        assert found.log_probs.requires_grad
        assert found.entropy.requires_grad
        assert (values["logps"] < 0).all()
        assert (values["entropies"] > 0).all()


@promise
def packed_columns(trainer):
    """Its batch says of every token place, completion, old log-prob and advantage, and how many there are."""
    taken = [sample for sample, _ in trainer.rollout_worker.taken]
    for at, (inputs, (outputs,), *_) in enumerate(trainer.losses):
        values, samples = flat(inputs, outputs), taken[8 * at : 8 * at + 8]
        assert inputs["global_n_tokens"].tolist() == [len(values["places"])]
        found = []
        for row in range(8):
            of_row = {name: value[values["segment_id"] == row] for name, value in values.items()}
            found.append([of_row[name].tolist() for name in ("places", "old_log_probs", "advantages")])
        expected = []
        for sample in samples:
            places = torch.as_tensor(sample.completion_mask).nonzero().flatten()
            advantages = torch.full(places.shape, sample.advantage)
            expected.append(
                [(places - 1).tolist(), torch.as_tensor(sample.old_log_probs)[places].tolist(), advantages.tolist()]
            )
        assert sorted(found) == sorted(expected)


@promise
def mean_over_micro_batch(trainer):
    """The loss is a sum over the tokens of a micro-batch on all ranks, over their number and the micro-batches."""
    for inputs, (outputs,), *_, loss in trainer.losses:
        values = {name: value.detach() for name, value in flat(inputs, outputs).items()}
        ratios, advantages = (values["logps"] - values["old_log_probs"]).exp(), values["advantages"]
        clipped = ratios.clamp(0.8, 1.2)
        expected = -torch.minimum(ratios * advantages, clipped * advantages).sum() / inputs["global_n_tokens"][0] / 2
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-7)


@promise
def step_in_one_list(trainer):
    """`get_batch_samples` gives all micro-batches of an optimizer step before the first is trained on."""
    assert [before for before, _ in trainer.steps] == [0, 2]
    for at, (_, batches) in enumerate(trainer.steps):
        trained = [inputs["token_index"] for inputs, *_ in trainer.losses[2 * at : 2 * at + 2]]
        assert len(batches) == 2
        assert all(torch.equal(batch["token_index"], one) for batch, one in zip(batches, trained, strict=True))


@promise
def samples_in_rows(trainer):
    """The collate function takes one list of rows; their `samples` have `input_ids` and the queue's own `metrics`."""
    taken = {id(sample.metrics): sample for sample, _ in trainer.rollout_worker.taken}
    for (rows,) in trainer.rows[:4]:
        assert len(rows) == trainer.accelerator.num_processes
        for sample in rows[0].samples:
            of_queue = taken[id(sample["metrics"])]
            assert (sample["input_ids"] == of_queue.input_ids).all()
            assert sample["metrics"]["reward"] == of_queue.metrics["reward"]


@promise
def versions(trainer):
    """`model_version` counts the weight syncs, of which there is one before the first step and one after each."""
    assert [version for _, _, _, version, _ in trainer.losses] == [1, 1, 2, 2]
    assert trainer.model_version == 3
    assert trainer.rollout_worker.version == 3


@promise
def bounds_at_every_loss(trainer):
    """The clip range is read from `self.epsilon_low` and `self.epsilon_high` at every loss."""
    inputs = trainer.losses[0][0]
    higher = {**inputs, "old_log_probs": inputs["old_log_probs"] - 5}  # ratios above 1
    for name, value, given in (("epsilon_low", 0.01, inputs), ("epsilon_high", 9.0, higher)):
        before, bound = own_loss(trainer, given), getattr(trainer, name)
        setattr(trainer, name, value)
        assert not torch.equal(own_loss(trainer, given), before)
        setattr(trainer, name, bound)
        assert torch.equal(own_loss(trainer, given), before)


@promise
def logged_entropy(trainer):
    """`_metrics["train"]["entropy"]` gets one value at every loss."""
    assert [entropies for _, _, entropies, *_ in trainer.losses] == [1, 1, 1, 1]


@promise
def checkpoint_hooks(trainer):
    """Checkpoints pass through `_save_checkpoint(model, trial)` and `_load_optimizer_and_scheduler(checkpoint)`."""
    folder = Path(trainer.args.output_dir)
    assert trainer.saved == [2]
    assert trainer.loaded == [str(folder / "checkpoint-1")]
    assert (folder / "checkpoint-2").is_dir()


RESUMED = {"checkpoint_hooks"}


@pytest.fixture(scope="module")
def trained(model_dir, tmp_path_factory):
    """A trainer that was spied upon, of each class once."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        on_the_cpu(patch)

        def make(trl: type, resume: bool):
            if (trl, resume) not in made:
                made[trl, resume] = trained_one(tmp_path_factory.mktemp("spied"), model_dir, trl, resume)
            return made[trl, resume]

        yield make


@pytest.mark.parametrize("name", PROMISES)
def test_promise_is_kept(trained, name):
    keep(name, trained(AsyncGRPOTrainer, name in RESUMED), PROMISES)


# A TRL that breaks one promise


class EarlyProduct(AsyncGRPOTrainer):
    def compute_loss(self, model, inputs, **kwargs):
        selected = inputs["advantages"][inputs["token_index"] >= 0]
        whole = torch.zeros_like(inputs["old_log_probs"])
        whole[inputs["token_index"] >= 0] = selected
        return super().compute_loss(model, {**inputs, "advantages": whole}, **kwargs)


class Probabilities(AsyncGRPOTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        forward = self.model.forward

        def other(*args, **kwargs):
            outputs = forward(*args, **kwargs)
            outputs.log_probs = outputs.log_probs.exp()
            return outputs

        self.model.forward = other


class OneCompletion(AsyncGRPOTrainer):
    def _prepare_inputs(self, inputs):
        inputs = super()._prepare_inputs(inputs)
        return {**inputs, "segment_id": torch.zeros_like(inputs["segment_id"])}


class MeanOverSamples(AsyncGRPOTrainer):
    def compute_loss(self, model, inputs, **kwargs):
        return super().compute_loss(model, {**inputs, "global_n_tokens": torch.tensor([8.0])}, **kwargs)


class OneByOne(AsyncGRPOTrainer):
    def get_batch_samples(self, epoch_iterator, num_batches, device):
        return super().get_batch_samples(epoch_iterator, 1, device)


class CopiedMetrics(AsyncGRPOTrainer):
    def get_train_dataloader(self):
        queue = copy(self.rollout_queue)

        def get(timeout=None):
            sample = copy(self.rollout_queue.get(timeout))
            sample.metrics = dict(sample.metrics)
            return sample

        queue.get = get
        given, self.rollout_queue = self.rollout_queue, queue
        loader = super().get_train_dataloader()
        self.rollout_queue = given
        return loader


class EverySecondSync(AsyncGRPOTrainer):
    def _sync_weight(self):
        super()._sync_weight()
        if self.state.global_step % 2:
            self.model_version -= 1


class FixedBounds(AsyncGRPOTrainer):
    epsilon_low = epsilon_high = property(lambda self: 0.2, lambda self, value: None)


class EntropyElsewhere(AsyncGRPOTrainer):
    def compute_loss(self, model, inputs, **kwargs):
        loss = super().compute_loss(model, inputs, **kwargs)
        self._metrics["train"]["mean_entropy"].append(self._metrics["train"]["entropy"].pop())
        return loss


class CheckpointElsewhere(AsyncGRPOTrainer):
    def train(self, resume_from_checkpoint=None):
        return super().train()


BROKEN = {
    "advantages_selected": EarlyProduct,
    "outputs_by_place": Probabilities,
    "packed_columns": OneCompletion,
    "mean_over_micro_batch": MeanOverSamples,
    "step_in_one_list": OneByOne,
    "samples_in_rows": CopiedMetrics,
    "versions": EverySecondSync,
    "bounds_at_every_loss": FixedBounds,
    "logged_entropy": EntropyElsewhere,
    "checkpoint_hooks": CheckpointElsewhere,
}


@pytest.mark.parametrize(("name", "trl"), BROKEN.items())
def test_broken_promise_is_named(trained, name, trl):
    with pytest.raises(AssertionError, match=f"^TRL no longer keeps {name}: "):
        keep(name, trained(trl, name in RESUMED), PROMISES)


def test_every_promise_can_be_broken_and_stands_in_the_architecture():
    assert BROKEN.keys() == PROMISES.keys()
    text = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
    assert [name for name in PROMISES if f"`{name}`" not in text] == []
