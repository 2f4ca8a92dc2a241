"""Random samples for the tests of the metrics."""

import numpy as np

from trl_entropy.lab.evaluation.metrics import Samples


def drawn(num_problems: int = 6, num_samples: int = 8, seed: int = 0, **given) -> Samples:
    """Samples with up to five answers, of which answer 0 is correct; fields by name replace the drawn ones."""
    random = np.random.default_rng(seed)
    shape = (num_problems, num_samples)
    answers = given.get("answers", random.integers(-1, 5, shape))
    texts = [[" ".join(random.choice(list("abcdef"), size)) for size in row] for row in random.integers(0, 9, shape)]
    fields = {
        "correct": answers == 0,
        "answers": answers,
        "lengths": random.integers(1, 30, shape),
        "logprobs": -random.random(shape).round(1),  # rounded: with ties
        "entropies": random.random(shape),
        "prompt_entropies": random.random(num_problems),
        "texts": texts,
    }
    return Samples(**{**fields, **given})
