"""
What each rule costs: its time as a share of the LM head's forward on the same tokens, medians of alternating runs.

    python benchmarks/rules.py [--rows 8] [--length 512] [--hidden 896] [--vocabulary 32000] [--repeats 9]
"""

import argparse
import json
import statistics
from dataclasses import replace

import torch
from shared import DEVICE, seconds

from trl_entropy import Tokens
from trl_entropy.build import SECTIONS
from trl_entropy.rules.looks import IsTop1, looks_among
from trl_entropy.rules.pool import Pool


# Settings at which a rule acts whose defaults are neutral
ON = {
    "asym_grpo": {"beta_pos": 0.9, "beta_neg": 0.4},
    "confident_sign": {"alpha": -0.5},
    "confident_surrogate": {"alpha": -0.5},
    "paec": {"coef": 0.1},
    "sign": {"positive_advantage_coef": 0.5},
    "siren": {"coef": 0.1},
}


def tokens(rows: int, length: int, device: str, looks: set) -> Tokens:
    generator = torch.Generator(device).manual_seed(0)

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(rows, length, generator=generator, device=device) * (high - low) + low

    logps, entropies = uniform(-4.0, 0.0), uniform(0.0, 3.0)
    lengths = torch.randint(length // 2, length + 1, (rows, 1), generator=generator, device=device)
    return Tokens(
        logps=logps,
        old_logps=(logps + uniform(-0.3, 0.3)).clamp(max=0),
        entropies=entropies,
        advantages=torch.randn(rows, 1, generator=generator, device=device).expand(rows, length),
        mask=torch.arange(length, device=device) < lengths,
        completions=torch.arange(rows, device=device) * 1000003,
        old_entropies=entropies * uniform(0.9, 1.1),
        ref_logps=(logps + uniform(-0.3, 0.3)).clamp(max=0),
        group_rewards=(torch.rand(rows, 8, generator=generator, device=device) < 0.5).float(),
        expected_discriminator=uniform(-0.2, 0.0),
        group_logps=torch.rand(rows, 8, generator=generator, device=device) - 1,
        rewards=(torch.rand(rows, generator=generator, device=device) < 0.5).float(),
        vocabulary={look: uniform(-1.0, 0.0) for look in looks} | {IsTop1(): uniform(0.0, 1.0) < 0.5},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 8), ("length", 512), ("hidden", 896), ("vocabulary", 32000), ("repeats", 9)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given, device = parser.parse_args(), DEVICE
    rules = {
        f"{section}.{name}": rule(**ON.get(name, {}))
        for section, table in SECTIONS.items()
        for name, rule in table.items()
    }
    looks = set().union(*(looks_among(rule.needs) for rule in rules.values()))
    batch = tokens(given.rows, given.length, device, looks)
    batch = replace(batch, pool=Pool([batch.detach()]))
    states = torch.randn(given.rows * given.length, given.hidden, device=device)
    weight = torch.randn(given.vocabulary, given.hidden, device=device)

    @torch.no_grad()
    def head() -> None:
        for chunk in states.split(1024):
            (chunk @ weight.T).log_softmax(-1)

    times: dict[str, list[float]] = {name: [] for name in ("head", *rules)}
    for repeat in range(given.repeats + 1):  # the first is a warm-up
        for name, rule in rules.items():
            taken = seconds(lambda rule=rule: rule(batch))
            if repeat:
                times[name].append(taken)
        taken = seconds(head)
        if repeat:
            times["head"].append(taken)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{vars(given)}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"LM head forward: {1e3 * medians['head']:.1f} ms\n\n| rule | ms | share of the LM head |\n|---|---|---|")
    for name in rules:
        print(f"| {name} | {1e3 * medians[name]:.2f} | {medians[name] / medians['head']:.2%} |")
    print(json.dumps({name: medians[name] / medians["head"] for name in rules}))


if __name__ == "__main__":
    main()
