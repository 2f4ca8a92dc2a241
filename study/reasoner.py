r"""
A small policy that reasons in words: `64=` -> `choose 64minus 42=22;22-21is 1;hence \boxed{42+21+1}`.

A number is written as a sum of three positive ones in two steps, each said in one of many ways. One step in seven is
wrong, and a quarter of those are noticed and mended, so that there are forks that mistakes come from.
"""

import json
import random
from pathlib import Path

import torch

from trl_entropy.lab.pretrain import BOXED, Solved, make_model, make_tokenizer, supervise


OPENINGS = ("take ", "choose ", "first ", "")
LINKS = ("then ", "next ", "now ", "and ", "also ", "")
ENDINGS = ("hence ", "answer ", "so ", "")
WORDS = (BOXED, *filter(None, OPENINGS + LINKS + ENDINGS), "leaves", "minus ", "is ", "no ", "ok ")
VOCABULARY = ("<pad>", "<eos>", BOXED, "}", "+", "=", ";", "-", " ", *"0123456789")
CONTEXT = 128  # tokens
WRONG, MENDED, CHECKED, SHUFFLED = 0.15, 0.25, 0.05, 0.3  # probabilities of a step's mistake, ..., of the terms' order
SLIPS = (-10, -9, -2, -1, 1, 2, 9, 10)

NUMBERS = range(60, 250)
KNOWN = 100  # numbers that the supervised training samples from; 90 others are held out
STEPS, BATCH_SIZE, LEARNING_RATE, WARMUP_STEPS = 1500, 96, 2e-3, 50


def known_numbers() -> list[int]:
    """Those that the policy was supervised on."""
    return sorted(_shuffled()[:KNOWN])


def held_out_numbers() -> list[int]:
    """Those that it never saw."""
    return sorted(_shuffled()[KNOWN:])


def solution(number: int, rng: random.Random) -> str:
    """One of the many solutions, with the mistakes that the policy learns."""
    first = rng.randint(1, number - 2)
    said, rest = _step(number, first, OPENINGS, rng)
    rest = max(rest, 2)
    second = rng.randint(1, rest - 1)
    said_next, third = _step(rest, second, LINKS, rng)
    terms = [first, second, third]
    if rng.random() < SHUFFLED:
        rng.shuffle(terms)
    return said + said_next + rng.choice(ENDINGS) + BOXED + "+".join(map(str, terms)) + "}"


def write(folder: Path, seed: int = 0) -> None:
    """The policy, ten minutes of one core, and its problems; what is there stays."""
    policy = folder / "reasoner"
    if not policy.is_dir():
        torch.set_num_threads(1)
        tokenizer = make_tokenizer(WORDS, VOCABULARY, CONTEXT)
        model = _supervised(tokenizer, seed)
        part = folder / "reasoner.part"
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        part.rename(policy)
    for name, numbers in (("known", known_numbers()), ("held_out", held_out_numbers())):
        rows = ({"prompt": f"{number}=", "solution": f"${number}$"} for number in numbers)
        (folder / f"reasoner_{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _supervised(tokenizer, seed: int, steps: int = STEPS):
    rng = random.Random(seed)
    numbers = known_numbers()

    def sample() -> list[Solved]:
        return [(f"{number}=", solution(number, rng)) for number in rng.choices(numbers, k=BATCH_SIZE)]

    def scale(step: int) -> float:
        return min(1.0, (step + 1) / WARMUP_STEPS) * (1.0 - 0.9 * step / steps)

    return supervise(make_model(tokenizer, seed), tokenizer, sample, steps, LEARNING_RATE, scale)


def _step(number: int, part: int, starts: tuple[str, ...], rng: random.Random) -> tuple[str, int]:
    """A subtraction in words, and what its writer goes on with."""
    rest, form, start = number - part, rng.randrange(4), rng.choice(starts)

    def say(value: int) -> str:
        forms = (
            f"{part};{number}-{part}={value};",
            f"{part}leaves{value};",
            f"{number}-{part}is {value};",
            f"{number}minus {part}={value};",
        )
        return start + forms[form]

    if rng.random() < WRONG:
        slip = max(1, rest + rng.choice(SLIPS))
        if rng.random() < MENDED:
            return f"{say(slip)}no {number}-{part}={rest};", rest
        return say(slip), slip
    return say(rest) + ("ok " if rng.random() < CHECKED else ""), rest


def _shuffled() -> list[int]:
    numbers = list(NUMBERS)
    random.Random(5).shuffle(numbers)
    return numbers
