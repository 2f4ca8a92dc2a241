import torch

from trl_entropy import Tokens
from trl_entropy.measures.staleness import log_ratio


def test_size_of_the_log_ratio_by_hand():
    logps, old = torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([[-1.5, -1.0, 7.0]])
    values = log_ratio(Tokens(logps, old, logps, logps, torch.tensor([[True, True, False]])))
    # 0.5 up and 1 down
    ((value, chosen),) = values.values()
    assert value[chosen].tolist() == [0.5, 1.0]
