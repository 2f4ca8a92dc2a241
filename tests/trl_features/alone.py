"""What the files here share: two trainings compared, and formulas over the tokens of the policy alone."""

import math
from copy import deepcopy

import pytest
import torch
from toy import distance, flat, fresh_logps, logged, loss_and_gradients, moved, parameters, same


# What the package logs beside TRL's metrics
OWN = (
    *("advantage_bonuses/", "authority/", "controllers/", "covariance/", "entropy/", "entropy_change/"),
    *("gradient_mass/", "groups/", "knobs/", "loss_terms/", "rollout/", "share/", "staleness/", "token_weights/"),
)
# All measures, and rules at the values that change nothing
MEASURED = {
    "entropy_measures": "full",
    "positive_advantage_coef": 1.0,
    "token_weights": {"confident_sign": {"alpha": 0.0}, "high_entropy": {"fraction": 1.0}},
    "loss_terms": {"kl_cov": {"coef": 0.0}},
}
OFF_POLICY = {"num_iterations": 2, "beta": 0.1, "loss_type": "grpo", "max_steps": 4}
# Settings of TRL, and neutral ones of the package
as_trl = pytest.mark.parametrize(
    ("settings", "neutral"), [({}, {}), (OFF_POLICY, MEASURED)], ids=["defaults", "off_policy_measured"]
)
# Rules whose loss is easy to write down
WEIGHTS = {"positive_advantage_coef": 0.5, "negative_advantage_coef": 1.5, "entropy_coef": 0.05}
SELECTION = {"token_weights": {"high_entropy": {"fraction": 0.5}}, "loss_terms": {"kl_cov": {"share": 0.3}}}
# All at once, turned by a controller; the second update of each rollout is off-policy
EVERYTHING = {
    **WEIGHTS,
    **SELECTION,
    "advantage_bonuses": {"entropy_advantage": {}},
    "entropy_measures": "full",
    "entropy_target": 1.0,
    "controllers": {"hold": {"law": "pi", "knob": "entropy_coef", "kp": 0.1, "ki": 0.1, "low": -1.0, "high": 1.0}},
    "num_iterations": 2,
    "max_steps": 4,
    "temperature": 0.8,
}
# What is logged of a training with EVERYTHING, in at least one of its steps
MEASURES = (
    *("entropy/positive_advantage", "entropy/negative_advantage", "entropy/correct", "entropy/temperature_1"),
    *("entropy/unlikely_positive", "share/unlikely_negative", "entropy/prompt", "covariance/logp_advantage"),
    *("gradient_mass/positive", "gradient_mass/negative", "entropy_change/predicted", "staleness/log_ratio"),
    *("token_weights/high_entropy/share", "loss_terms/kl_cov/mean", "advantage_bonuses/entropy_advantage/mean"),
    *("knobs/entropy_coef", "controllers/hold/error", "groups/all_correct", "authority/noise_share"),
)


def without_times(rows: list[dict]) -> list[dict]:
    return [
        {name: value for name, value in row.items() if not name.endswith(("time", "runtime", "per_second"))}
        for row in rows
    ]


def assert_trained_as_trl(trl, ours) -> None:
    """The same parameters, and the same values in all that TRL logs, bit for bit."""
    assert same(parameters(ours), parameters(trl))
    rows = without_times(ours.state.log_history)
    rows = [{name: value for name, value in row.items() if not name.startswith(OWN)} for row in rows]
    assert rows == without_times(trl.state.log_history)
    for name in ("grad_norm", "entropy"):
        assert len(set(logged(trl, name))) > 1  # there is something to compare


def training(build):
    """What `build` does, with the trainer trained."""

    def train(*args, **settings):
        trainer = build(*args, **settings)
        trainer.train()
        return trainer

    return train


def assert_everything_acts(trainer, before: dict) -> None:
    """A training with EVERYTHING has moved the policy and the knob, and logs finite measures."""
    assert not same(parameters(trainer), before)
    for name in MEASURES:
        assert logged(trainer, name), name
    assert len(set(logged(trainer, "knobs/entropy_coef"))) > 1
    assert all(math.isfinite(v) for row in trainer.state.log_history for v in row.values() if isinstance(v, float))


def of_policy(inputs: dict) -> torch.Tensor:
    """Bool `(B, T)`: neither padding nor what a tool or an environment wrote."""
    return inputs["completion_mask"].bool() & inputs.get("tool_mask", torch.ones(())).bool()


def plain_copy(model):
    """The same policy in float64, without what TRL does to the forward pass of its own."""
    if hasattr(model, "merge_and_unload"):
        model = deepcopy(model).merge_and_unload()
    copy = type(model)(model.config).double()
    copy.load_state_dict(model.state_dict())
    return copy


def raw_logits(model, inputs: dict) -> torch.Tensor:
    """`(B, T, V)`: what the policy says about each token of the completions, at temperature 1."""
    given = {name: inputs[name] for name in ("pixel_values", "image_sizes") if name in inputs}
    logits = model(
        input_ids=torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
        attention_mask=torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
        **given,
    ).logits
    return logits[:, -inputs["completion_ids"].shape[1] - 1 : -1].double()


def entropy(logits: torch.Tensor) -> torch.Tensor:
    logps = logits.log_softmax(-1)
    return -(logps.exp() * logps).sum(-1)


def chosen(logits: torch.Tensor, inputs: dict) -> torch.Tensor:
    return logits.log_softmax(-1).gather(-1, inputs["completion_ids"].unsqueeze(-1)).squeeze(-1)


def sign_weights(advantages: torch.Tensor) -> torch.Tensor:
    positive, negative = WEIGHTS["positive_advantage_coef"], WEIGHTS["negative_advantage_coef"]
    return torch.where(advantages > 0, positive, torch.where(advantages < 0, negative, 1.0))


def measures_by_hand(trainer, inputs: dict, mask: torch.Tensor) -> dict[str, float]:
    """What an on-policy step with WEIGHTS measures of the tokens in the mask, each by its definition in the docs."""
    with torch.no_grad():
        raw = raw_logits(plain_copy(trainer.model), inputs)
    logits = raw / trainer.temperature
    entropies, logps = entropy(logits)[mask], chosen(logits, inputs)[mask]
    advantages = inputs["advantages"].double().unsqueeze(1).expand(mask.shape)[mask]
    rewards = inputs["rewards"].unsqueeze(1).expand(mask.shape)[mask]
    slopes = advantages * sign_weights(advantages)
    place = mask.cumsum(1)
    decile = ((10 * place - 5) // mask.sum(1, keepdim=True).clamp(min=1) + 1)[mask]
    pull, likely = slopes.abs() * (1 - logps.exp()), logps.exp() >= 0.5
    groups = {
        "positive_advantage": advantages > 0,
        "negative_advantage": advantages < 0,
        "correct": rewards > 0.5,
        "incorrect": rewards <= 0.5,
        "likely_positive": likely & (advantages > 0),
        "unlikely_positive": ~likely & (advantages > 0),
        "likely_negative": likely & (advantages < 0),
        "unlikely_negative": ~likely & (advantages < 0),
        **{f"decile_{number}": decile == number for number in range(1, 11)},
    }
    means = {
        "entropy": entropies.mean(),
        "entropy/temperature_1": entropy(raw)[mask].mean(),
        "covariance/logp_advantage": (logps * advantages).mean() - logps.mean() * advantages.mean(),
        "gradient_mass/positive": torch.where(slopes > 0, pull, 0).mean(),
        "gradient_mass/negative": torch.where(slopes < 0, pull, 0).mean(),
        "gradient_mass/positive_share": torch.where(slopes > 0, pull, 0).sum() / pull.sum(),
        "token_weights/sign/mean": sign_weights(advantages).mean(),
        "token_weights/sign/share": (advantages != 0).double().mean(),
        "staleness/log_ratio": torch.zeros(()),
        "staleness/updates": torch.zeros(()),
        **{f"entropy/{name}": entropies[members].mean() for name, members in groups.items()},
        **{f"share/{name}": members.double().mean() for name, members in groups.items() if "likely" in name},
    }
    return {name: mean.item() for name, mean in means.items() if not mean.isnan()}


def assert_measured_of_policy(trainer) -> None:
    """The measures of a step with WEIGHTS and a learning rate of 0 are those of the policy's tokens."""
    inputs, last = trainer._buffered_inputs[0], trainer.measures.last
    mask = of_policy(inputs)
    expected = measures_by_hand(trainer, inputs, mask)
    assert expected.keys() == {name for name in last if name != "entropy/prompt"}
    for name, value in expected.items():
        assert last[name] == pytest.approx(value, abs=2e-5), name  # float32 against float64
    assert trainer.step_entropy() == last["entropy"]


def measured_of_all(trainer) -> dict[str, float]:
    inputs = trainer._buffered_inputs[0]
    return measures_by_hand(trainer, inputs, inputs["completion_mask"].bool())


def loss_by_hand(trainer, inputs: dict, mask: torch.Tensor) -> tuple[float, torch.Tensor]:
    """
    The dapo loss of one rollout in one micro-batch over the tokens in the mask, and its gradient, flat: with WEIGHTS,
    and the rules of SELECTION that the trainer has.
    """
    model = plain_copy(trainer.model)
    logits = raw_logits(model, inputs) / trainer.temperature
    logps, entropies = chosen(logits, inputs)[mask], entropy(logits)[mask]
    advantages = inputs["advantages"].double().unsqueeze(1).expand(mask.shape)[mask]
    change = logps - inputs["old_per_token_logps"].double()[mask]
    effective, term = advantages * sign_weights(advantages), torch.zeros(())
    if "high_entropy" in trainer.rules.sections["token_weights"]:
        fraction = SELECTION["token_weights"]["high_entropy"]["fraction"]
        effective = effective * (entropies >= entropies.quantile(1 - fraction) - 1e-6).detach()
    if "kl_cov" in trainer.rules.sections["loss_terms"]:
        covariances = (advantages - advantages.mean()) * (logps - logps.mean()).detach()
        number = int(SELECTION["loss_terms"]["kl_cov"]["share"] * len(logps))
        term = change[covariances.topk(number).indices].abs().sum()
    ratios = change.exp()
    surrogate = torch.min(ratios * effective, ratios.clamp(0.8, 1.2) * effective)
    loss = (term - surrogate.sum()) / len(logps) - WEIGHTS["entropy_coef"] * entropies.mean()
    loss.backward()
    return loss.item(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def assert_loss_of_policy(trainer) -> None:
    """Loss and gradient of the last rollout, as if another policy had sampled it, are those of the policy's tokens."""
    inputs = trainer._buffered_inputs[0]
    inputs["old_per_token_logps"] = moved(fresh_logps(trainer, inputs), by=0.4)
    loss, gradients = loss_and_gradients(trainer, inputs)
    by_hand = loss_by_hand(trainer, inputs, of_policy(inputs))
    assert loss.item() == pytest.approx(by_hand[0], abs=1e-5)
    assert distance(flat(gradients).double(), by_hand[1]) < 1e-5
    of_all = loss_by_hand(trainer, inputs, inputs["completion_mask"].bool())
    assert distance(of_all[1], by_hand[1]) > 0.1
