"""
`python -m study.etpo`: ETPO against GRPO on the embedded problems with a second attempt, seed by seed.

All arms sample the same number of episodes for each update, from the recipe of ETPO. A run that is kept
is not run again.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean

from trl_entropy import EntropyGRPOConfig, EntropyGRPOTrainer
from trl_entropy.commands.recipe import read_recipe
from trl_entropy.data import EMBEDDED_POLICY
from trl_entropy.etpo import Arithmetic, Episodes, EtpoConfig, EtpoTrainer, environment_score

from .arms import SEEDS
from .statistics import effect


RECIPE = "recipes/etpo/arithmetic.yaml"
RUNS = Path(__file__).parents[1] / "docs" / "data" / "etpo.jsonl"
STEPS = 250  # optimizer steps
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


def run(arm: str, seed: int) -> dict[str, list[float]]:
    """Train one arm with one seed; the means of ten optimizer steps each."""
    trainer_class, changes = ARMS[arm]
    config, others = (EtpoConfig, ()) if trainer_class is EtpoTrainer else (EntropyGRPOConfig, OF_ETPO)
    left_out = ("model_name_or_path", "environment", *others)
    flags = {name: value for name, value in read_recipe(RECIPE).items() if name not in left_out}
    flags |= {"output_dir": f"out/study/etpo/{arm}_{seed}", "seed": seed, "max_steps": STEPS, "disable_tqdm": True}
    trainer = trainer_class(
        model=str(EMBEDDED_POLICY),
        reward_funcs=environment_score,
        args=config(**flags | changes),
        train_dataset=Arithmetic.dataset(),
        rollout_func=Episodes(Arithmetic),
    )
    trainer.train()
    return {name: [row[name] for row in trainer.state.log_history if name in row] for name in SERIES}


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
    given = parser.parse_args()
    for seed in SEEDS[: given.seeds]:
        for arm in given.arms:
            if (arm, seed) not in kept():
                line = json.dumps({"arm": arm, "seed": seed, "series": run(arm, seed)}, separators=(",", ":"))
                with RUNS.open("a") as file:
                    file.write(line + "\n")
    print(table())


if __name__ == "__main__":
    main()
