"""A bonus for right completions that are shorter than the other right ones in their group."""

from collections import defaultdict

from .math_verify import MathVerifyReward
from .messages import policy_texts


class RelativeLengthReward:
    r"""
    A bonus for right completions by their length relative to the right ones in their group; 0 for all others.

    For a correct completion i in a group in which a share of at least `accuracy` is correct:

        bonus_i = clip((mean length of the correct - length_i) / length_scale, low, high)

    Use it beside [`math_verify_reward`], so that a right completion gets 1 + bonus. Groups are those of the rollout
    batch, over all ranks. TRL's own trainer does not tell a reward which groups there are, so there all completions of
    a prompt in the batch are one group. Lengths are in tokens, without tokens that an environment wrote.

    Args:
        accuracy (`float`, *optional*, defaults to `0.75`):
            Smallest share of correct completions with which a group gets the bonus.
        length_scale (`float`, *optional*, defaults to `500`):
            Number of tokens that are worth a bonus of 1.
        low (`float`, *optional*, defaults to `-0.5`), high (`float`, *optional*, defaults to `1.0`):
            Bounds of the bonus.
        correct (`MathVerifyReward`, *optional*):
            The reward that decides which completions are correct.

    Reference: Dissecting Long-CoT Reasoning Models (https://huggingface.co/papers/2506.04913).
    """

    __name__ = "relative_length_reward"
    reads_rollout = True  # as in math_verify

    def __init__(
        self,
        accuracy: float = 0.75,
        length_scale: float = 500,
        low: float = -0.5,
        high: float = 1.0,
        correct: MathVerifyReward | None = None,
    ):
        if not length_scale > 0:
            raise ValueError(f"length_scale must be above 0 tokens, got {length_scale}")
        if not low <= high:
            raise ValueError(f"low must not be above high, got low={low} and high={high}")
        self.accuracy, self.length_scale, self.low, self.high = accuracy, length_scale, low, high
        self.correct = correct or MathVerifyReward()

    def __call__(
        self,
        prompts: list,
        completions: list,
        completion_ids: list[list[int]],
        solution: list,
        policy_text: list[str] | None = None,
        env_mask: list[list[int]] | None = None,
        rollout_group: list[int] | None = None,
        **kwargs,
    ) -> list[float | None]:
        """The bonus per completion; None where the solution cannot be read."""
        _, verdicts = self.correct.verdicts(policy_texts(completions, policy_text), solution)
        lengths = map(len, completion_ids) if env_mask is None else map(sum, env_mask)
        keys = map(repr, prompts if rollout_group is None else rollout_group)
        right = [verdict == "correct" for verdict in verdicts]
        mine, groups = list(zip(keys, lengths, right, strict=True)), defaultdict(list)
        for key, length, correct in _on_all_ranks(mine):
            groups[key].append((length, correct))
        means = {key: self._mean_length(members) for key, members in groups.items()}
        return [
            None if verdict == "unparsable_gold" else self._bonus(means[key], length, correct)
            for (key, length, correct), verdict in zip(mine, verdicts, strict=True)
        ]

    def _mean_length(self, members: list[tuple[int, bool]]) -> float | None:
        right = [length for length, correct in members if correct]
        return sum(right) / len(right) if right and len(right) >= self.accuracy * len(members) else None

    def _bonus(self, mean: float | None, length: int, correct: bool) -> float:
        if mean is None or not correct:
            return 0.0
        return min(self.high, max(self.low, (mean - length) / self.length_scale))

    def __reduce__(self):
        return type(self), (self.accuracy, self.length_scale, self.low, self.high, self.correct)


def _on_all_ranks(members: list) -> list:
    """Collect a group from all ranks, since it may be split over them."""
    import torch.distributed as dist  # the grading process imports this package and does not need torch

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return members
    gathered = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, members)
    return [member for rank in gathered for member in rank]


_relative_length = RelativeLengthReward()


def relative_length_reward(
    prompts: list, completions: list, completion_ids: list[list[int]], solution: list, **kwargs
) -> list[float | None]:
    """
    A bonus for right completions that are shorter than the other right ones in their group; use it with a correctness
    reward.

    [`RelativeLengthReward`] with its defaults.
    """
    return _relative_length(prompts, completions, completion_ids, solution, **kwargs)


relative_length_reward.reads_rollout = True
