"""
`python -m study.etpo`: ETPO against GRPO on the embedded problems with a second attempt, seed by seed.

Both sample the same number of episodes for each update, from the recipe of ETPO. A run that is there is not run again.
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


RECIPE = "recipes/etpo/arithmetic.yaml"
FOLDER = Path("out") / "study" / "etpo"
SERIES = ("reward", "env/attempts", "entropy", "etpo/q_loss", "etpo/value", "etpo/kl")
OF_ETPO = ("critic", "critic_learning_rate", "polyak", "gamma", "beta")
# What differs from the recipe; `grpo_kl` has the KL penalty of ETPO as TRL estimates it
ARMS = {
    "etpo": (EtpoTrainer, {}),
    "grpo": (EntropyGRPOTrainer, {"beta": 0.0}),
    "grpo_kl": (EntropyGRPOTrainer, {"beta": 0.03}),
}


def run(arm: str, seed: int, steps: int) -> dict[str, list[float]]:
    """The series of one run; stored in `out/study/etpo`."""
    path = FOLDER / f"{arm}_{seed}_{steps}.json"
    if path.is_file():
        return json.loads(path.read_text())
    trainer_class, changes = ARMS[arm]
    config, others = (EtpoConfig, ()) if trainer_class is EtpoTrainer else (EntropyGRPOConfig, OF_ETPO)
    left_out = ("model_name_or_path", "environment", *others)
    flags = {name: value for name, value in read_recipe(RECIPE).items() if name not in left_out}
    flags |= {"output_dir": str(FOLDER / f"{arm}_{seed}"), "seed": seed, "max_steps": steps, "disable_tqdm": True}
    flags |= changes
    trainer = trainer_class(
        model=str(EMBEDDED_POLICY),
        reward_funcs=environment_score,
        args=config(**flags),
        train_dataset=Arithmetic.dataset(),
        rollout_func=Episodes(Arithmetic),
    )
    trainer.train()
    series = {name: [row[name] for row in trainer.state.log_history if name in row] for name in SERIES}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(series))
    return series


def main() -> None:
    """Train what is missing and print the means of the last tenth of each run."""
    parser = argparse.ArgumentParser(prog="python -m study.etpo", description=__doc__)
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many")
    parser.add_argument("--steps", type=int, default=600, help="optimizer steps")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    given = parser.parse_args()
    print("| arm | seed | score at the start | score at the end | attempts | entropy |\n|---|---|---|---|---|---|")
    for seed in SEEDS[: given.seeds]:
        for arm in given.arms:
            series = run(arm, seed, given.steps)
            last = max(1, len(series["reward"]) // 10)
            ends = (fmean(series[name][-last:]) for name in SERIES[:3])
            cells = [arm, seed, *(f"{value:.2f}" for value in (fmean(series["reward"][:last]), *ends))]
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
