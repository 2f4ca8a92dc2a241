"""
`python -m study.etpo`: ETPO against GRPO on the embedded problems with a second attempt, seed by seed.

All arms sample the same number of episodes for each update, from the recipe of ETPO. A run that is kept
is not run again.
"""

import argparse
import json
from pathlib import Path
from statistics import correlation, fmean

import torch

from trl_entropy import EntropyGRPOConfig, EntropyGRPOTrainer
from trl_entropy.commands.recipe import read_recipe
from trl_entropy.data import EMBEDDED_POLICY
from trl_entropy.etpo import Arithmetic, Episodes, EtpoConfig, EtpoTrainer, environment_score

from .arms import SEEDS
from .statistics import effect


RECIPE = "recipes/etpo/arithmetic.yaml"
RUNS = Path(__file__).parents[1] / "docs" / "data" / "etpo.jsonl"
STEPS = 250  # optimizer steps
BACK = (0, 1, 2, 3)  # tokens before the end of an episode
LAST = 3  # log lines of ten optimizer steps each, whose mean is the end of a run
SERIES = ("reward", "env/attempts", "entropy", "etpo/q_loss", "etpo/value", "etpo/kl")
OF_ETPO = ("critic", "critic_learning_rate", "polyak", "gamma", "beta")
# What differs from the recipe; `grpo_kl` has the KL penalty of ETPO as TRL estimates it
ARMS = {
    "etpo": (EtpoTrainer, {}),
    "grpo": (EntropyGRPOTrainer, {"beta": 0.0, "learning_rate": 5e-4}),
    "grpo_kl": (EntropyGRPOTrainer, {"beta": 0.03, "learning_rate": 5e-4}),
}
COLUMNS = {"score": "reward", "attempts": "env/attempts", "entropy, nats": "entropy"}


def kept() -> dict[tuple[str, int], dict[str, list[float]]]:
    """The series of every run, by arm and seed."""
    lines = RUNS.read_text().splitlines() if RUNS.is_file() else []
    return {(run["arm"], run["seed"]): run["series"] for run in map(json.loads, lines)}


def build(arm: str, seed: int, trainer_class: type | None = None, **changes):
    """The trainer of one arm with one seed."""
    of_arm, settings = ARMS[arm]
    trainer_class = trainer_class or of_arm
    config, others = (EtpoConfig, ()) if of_arm is EtpoTrainer else (EntropyGRPOConfig, OF_ETPO)
    left_out = ("model_name_or_path", "environment", *others)
    flags = {name: value for name, value in read_recipe(RECIPE).items() if name not in left_out}
    flags |= {"output_dir": f"out/study/etpo/{arm}_{seed}", "seed": seed, "max_steps": STEPS, "disable_tqdm": True}
    return trainer_class(
        model=str(EMBEDDED_POLICY),
        reward_funcs=environment_score,
        args=config(**flags | settings | changes),
        train_dataset=Arithmetic.dataset(),
        rollout_func=Episodes(Arithmetic),
    )


def run(arm: str, seed: int) -> dict[str, list[float]]:
    """Train one arm with one seed; the means of ten optimizer steps each."""
    trainer = build(arm, seed)
    trainer.train()
    return {name: [row[name] for row in trainer.state.log_history if name in row] for name in SERIES}


class Watched(EtpoTrainer):
    """Keeps how Q of a token near the end of an episode correlates with the last reward; of the last fifty updates."""

    def own_loss(self, batch, states, mask, num_tokens):
        if self.state.global_step < self.args.max_steps - 50:
            return super().own_loss(batch, states, mask, num_tokens)
        with torch.no_grad():
            critic = self.critic.states_and_head(batch, states, mask)
            chosen = critic.head.chosen(critic.states, batch["completion_ids"][mask])
        q = torch.zeros(mask.shape).masked_scatter(mask, chosen)
        ends = (mask * torch.arange(mask.shape[1])).argmax(1)
        rewards = batch["targets"].gather(1, ends[:, None])[:, 0]  # nothing follows the last token
        found = [correlation(q.gather(1, ends[:, None] - back)[:, 0].tolist(), rewards.tolist()) for back in BACK]
        self.watched = [*getattr(self, "watched", []), found]
        return super().own_loss(batch, states, mask, num_tokens)


def reach(seed: int) -> list[float]:
    """The correlations after 200 updates of the critic, under a policy that stands still."""
    trainer = build("etpo", seed, max_steps=200, learning_rate=0.0, trainer_class=Watched)
    trainer.train()
    return [fmean(values) for values in zip(*trainer.watched, strict=True)]


def table() -> str:
    """How the runs of each arm began and ended: means over seeds with their 95 % intervals."""
    runs = kept()
    lines = ["| arm | seeds | score at the start | " + " | ".join(COLUMNS) + " |", "|---" * 6 + "|"]
    for arm in ARMS:
        of_arm = [series for (name, _), series in sorted(runs.items()) if name == arm]
        if of_arm:
            first = effect([series["reward"][0] for series in of_arm])
            ends = [effect([fmean(series[name][-LAST:]) for series in of_arm]) for name in COLUMNS.values()]
            cells = (f"{found:.2f}" for found in (first, *ends))
            lines.append(f"| `{arm}` | {len(of_arm)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, keep it, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m study.etpo", description=__doc__)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--reach", action="store_true", help="how far before the end of an episode Q knows its reward")
    given = parser.parse_args()
    if given.reach:
        found = [reach(seed) for seed in SEEDS[: given.seeds]]
        for at, back in enumerate(BACK):
            print(f"{back} tokens before the end: {effect([values[at] for values in found])}")
        return
    for seed in SEEDS[: given.seeds]:
        for arm in given.arms:
            if (arm, seed) not in kept():
                line = json.dumps({"arm": arm, "seed": seed, "series": run(arm, seed)}, separators=(",", ":"))
                with RUNS.open("a") as file:
                    file.write(line + "\n")
    print(table())


if __name__ == "__main__":
    main()
