"""`python -m study`: train what is missing, then draw the figures and make the tables of docs/study.md."""

import argparse

from trl_entropy.checks import minutes

from . import language, reasoner
from .arms import FIRST_SEEDS, FIXED, LAWS_ON_KNOBS, SEEDS, TUNING_SEEDS, Arm
from .problems import write, write_language
from .runs import PROBLEMS, Run, train_all
from .store import FOLDER, every
from .testbed import AUTHORITY
from .tuning import chosen_arms, constant_arms, rate_arms


def runs(arms: dict[str, Arm], seeds: list[int]) -> list[Run]:
    """Seed by seed, so that what is there at any time compares."""
    return [Run(name, arm, seed) for seed in seeds for name, arm in arms.items()]


# Of the embedded policy and the small reasoner, in this order: the choices of a part need the runs of those before it
PARTS = {
    "fixed": lambda: runs(FIXED, SEEDS),
    "authority": lambda: runs(AUTHORITY, SEEDS),
    "laws": lambda: runs(LAWS_ON_KNOBS, FIRST_SEEDS),
    "constants": lambda: runs(constant_arms(), TUNING_SEEDS),
    "rates": lambda: runs(rate_arms(), TUNING_SEEDS),
    "methods": lambda: runs(chosen_arms(), SEEDS),
}


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m study", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--language_model", action="store_true", help="the arms on SmolLM2-135M-Instruct instead")
    parser.add_argument("--gpu", action="store_true", help="those of them that are for a GPU")
    parser.add_argument("--part", choices=PARTS, help="one part of the others, where all go one after another")
    parser.add_argument("--minutes", type=minutes, help="of --language_model: end what has not ended by then")
    parser.add_argument("--only_report", action="store_true", help="train nothing")
    parser.add_argument("--only_train", action="store_true", help="draw and write nothing")
    return parser


def main() -> None:
    """Train, draw and write."""
    given = (flags := parser()).parse_args()
    if given.gpu and not given.language_model:
        flags.error("--gpu is for --language_model: the embedded policy is fastest on a CPU core")
    if given.part is not None and given.language_model:
        flags.error("--part is for the embedded policy: --language_model has one part")
    if given.minutes is not None and not given.language_model:
        flags.error("--minutes is for --language_model: other arms are chosen by what earlier runs have shown")
    if given.jobs < 1:
        flags.error(f"--jobs must be at least 1, got {given.jobs}")
    try:
        train(given)
    except ValueError as error:  # a flag of an arm, a file that is not there
        flags.error(str(error))
    if given.only_train:
        return
    if not every():
        flags.error(f"no run is kept in {FOLDER}, so there is nothing to draw: train some, without --only_report")
    from .figures import draw_all
    from .tables import PAGES, updated

    draw_all()
    for page in PAGES:
        page.write_text(updated(page.read_text()))


def train(given: argparse.Namespace) -> None:
    """The runs that the flags name and that are not kept yet."""
    if given.only_report:
        return
    if given.language_model:
        write_language(PROBLEMS)
        on_cpu = runs(language.CPU_ARMS, FIRST_SEEDS) + runs(language.MAIN_ARMS, language.MORE_SEEDS)
        train_all(runs(language.GPU_ARMS, SEEDS) if given.gpu else on_cpu, given.jobs, given.minutes)
        return
    write(PROBLEMS, SEEDS)
    for part in PARTS if given.part is None else [given.part]:
        if part == "authority":
            reasoner.write(PROBLEMS)
        train_all(PARTS[part](), given.jobs)


if __name__ == "__main__":
    main()
