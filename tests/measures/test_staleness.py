import torch

from trl_entropy import Tokens
from trl_entropy.measures.staleness import staleness


def test_versions_and_size_of_the_log_ratio_by_hand():
    logps, old = torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([[-1.5, -1.0, 7.0]])
    mask, versions = torch.tensor([[True, True, False]]), torch.tensor([[0.0, 2.0, 5.0]])
    values = staleness(Tokens(logps, old, logps, logps, mask, staleness=versions))
    chosen = {name: value[tokens].tolist() for name, (value, tokens) in values.items()}
    # 0.5 up and 1 down
    assert chosen == {"staleness/updates": [0.0, 2.0], "staleness/log_ratio": [0.5, 1.0]}
