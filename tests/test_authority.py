"""Whether a weight on one sign can move the entropy: two runs of the embedded policy that differ in it."""

from statistics import fmean
from types import SimpleNamespace

import pytest
import torch
from test_measures import sum_is_right
from toy import build_trainer, logged
from transformers import TrainerCallback

from study.rewards import coin
from trl_entropy import data
from trl_entropy._seam.state import gradient_sample
from trl_entropy.control.advice import LEAST_STEPS, NO_AUTHORITY, PREDICTED
from trl_entropy.lab.report.findings.authority import authority
from trl_entropy.lab.report.runs import read_run


HALF = {"positive_advantage_coef": 0.5, "max_completion_length": 12, "num_generations": 8, "learning_rate": 2e-4}


def trained(folder, **settings):
    trainer = build_trainer(
        str(data.EMBEDDED_POLICY), data.train_problems(), folder, **{**HALF, "logging_steps": 1, **settings}
    )
    trainer.train()
    return trainer


def told(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if NO_AUTHORITY in record.getMessage()]


@pytest.mark.slow
def test_with_the_true_reward_both_signs_pull_the_entropy_down(tmp_path, caplog):
    trained(tmp_path, reward_funcs=sum_is_right, per_device_train_batch_size=32, max_steps=LEAST_STEPS + 6)
    (found,) = authority(read_run(tmp_path))
    assert found.text == f"positive_advantage_coef {NO_AUTHORITY}"
    assert told(caplog) == [f"{found.text}: {found.advice[0].lower()}{found.advice[1:]} See docs/authority.md"]


def test_with_a_reward_by_chance_and_many_updates_they_part(tmp_path, caplog):
    # 16 updates of 8 completions on each rollout
    updates = {"per_device_train_batch_size": 8, "off_policy_updates": 16, "max_steps": 96}
    trainer = trained(tmp_path, reward_funcs=coin, **updates)
    assert authority(read_run(tmp_path)) == told(caplog) == []
    positive, negative = (fmean(logged(trainer, name)) for name in PREDICTED)
    assert positive < negative
    assert fmean(logged(trainer, "authority/noise_share")) == pytest.approx(1.0, abs=0.05)


class Gradient(TrainerCallback):
    """Keeps the whole gradient of every optimizer step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        self.steps.append(torch.cat([one.grad.flatten().double() for one in model.parameters()]))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_noise_of_a_run_is_that_of_its_gradients(run, accumulation):
    seen, updates = Gradient(), {"off_policy_updates": 2, "max_steps": 4, "max_grad_norm": 0.0}
    trainer = run(callbacks=[seen], gradient_accumulation_steps=accumulation, **updates)
    first, second, *others = seen.steps
    lengths = [((first @ first + second @ second) / 2 * (one @ one)).sqrt() for one in others]
    expected = [1 - one @ (first + second) / 2 / length for one, length in zip(others, lengths, strict=True)]
    assert logged(trainer, "authority/noise_share") == pytest.approx([float(one) for one in expected], abs=1e-5)


def test_sample_of_a_gradient_is_evenly_spaced():
    parameters = [torch.nn.Parameter(torch.zeros(size).bfloat16()) for size in ((3, 4), (1,), (7,), (5,))]
    gradient = torch.arange(25.0) + 1
    for parameter, part in zip(parameters, gradient.split([12, 1, 7, 5]), strict=True):
        parameter.grad = part.view(parameter.shape).bfloat16()
    parameters[2].grad = None
    parameters.insert(1, torch.nn.Parameter(torch.zeros(9), requires_grad=False))
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu"),
        is_deepspeed_enabled=False,
        model=SimpleNamespace(parameters=lambda: parameters),
    )
    gradient[13:20] = 0.0
    for most, stride in ((25, 1), (24, 2), (9, 3), (8, 4), (1, 25)):
        assert gradient_sample(trainer, most).tolist() == gradient[::stride].tolist()
    trainer.is_deepspeed_enabled = True
    assert gradient_sample(trainer).tolist() == []
