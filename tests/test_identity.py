"""With neutral settings the trainer is TRL's, bit for bit."""

import torch


def trajectory(trainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trainer.model.parameters()]


def test_smoke(run):
    a, b = run(plain=True), run()
    assert all(torch.equal(x, y) for x, y in zip(trajectory(a), trajectory(b), strict=True))
    print(b.state.log_history)
    c = run(entropy_control="entropy_guided", entropy_target_ratio=0.5)
    print(c.state.log_history)
