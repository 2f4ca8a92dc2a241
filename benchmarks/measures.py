"""
What each measure costs: its time as a share of an optimizer step without generation, of the same process.

A run with `entropy_measures=full` clocks every measure, and every fact about the vocabulary that `full` asks for, in
each of its steps. The step is that of TRL with the package's loss, less the measures; a share is the median over the
steps.

    python benchmarks/measures.py [--steps 20] [--rows 128] [--length 12] [--accumulation 1]
    python benchmarks/measures.py --policy random --rows 4 --length 256 --accumulation 2
"""

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from contextlib import contextmanager

import torch
from shared import QUIET, now
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from trl_entropy import EntropyGRPOConfig, EntropyGRPOTrainer, data
from trl_entropy.measures import StepMeasures
from trl_entropy.measures.contexts import samples_per_context
from trl_entropy.measures.entropy import entropy_of_prompt
from trl_entropy.measures.groups import outcomes, votes
from trl_entropy.measures.step import OF_SLOPES, OF_TOKENS
from trl_entropy.measures.surrogate import surrogate_slopes
from trl_entropy.rewards import math_verify_reward


OF_ROLLOUT = ("outcomes", "votes", "samples per context")  # these are part of the generation
# What `full` has beside the others; the entropy at temperature 1 and that of the prompt are means of these facts
FULL = ("expected_discriminator", "entropies_at_one", "prompt_entropies", "votes")


class Clock:
    """Seconds by name, in the optimizer step at hand and in those before."""

    def __init__(self):
        self.steps, self._now = [], defaultdict(float)

    @contextmanager
    def of(self, name: str):
        """Count the seconds of a block; on a CPU those of this process, whatever else runs."""
        start = now()
        yield
        self._now[name] += now() - start

    def end_step(self) -> None:
        """Begin the next step."""
        self.steps.append(dict(self._now))
        self._now = defaultdict(float)


class ClockedMeasures(StepMeasures):
    """The measures of `full`, one by one."""

    def __init__(self, clock: Clock):
        super().__init__("full")
        self.clock = clock

    def add_tokens(self, tokens, effective):
        values = {}
        for measure in OF_TOKENS:
            with self.clock.of(measure.__name__):
                values |= measure(tokens)
        with self.clock.of("surrogate_slopes"):
            slopes = surrogate_slopes(tokens, effective)
        for measure in OF_SLOPES:
            with self.clock.of(measure.__name__):
                values |= measure(tokens, slopes)
        with self.clock.of("sums of a micro-batch"):
            self.sums.add_values(values)
        with self.clock.of("prompt_entropies"):
            self.sums.add_values(entropy_of_prompt(tokens))

    def add_gradient(self, gradient):
        with self.clock.of("noise of the gradient"):
            super().add_gradient(gradient)

    def of_rollout(self, rewards, answers, contexts):
        self._gradients.begin_rollout()
        with self.clock.of("outcomes"):
            means = outcomes(rewards)
        with self.clock.of("samples per context"):
            means |= samples_per_context(contexts)
        with self.clock.of("votes"):
            return means | votes(answers(), rewards.shape[1])

    def end_step(self, over_ranks):
        with self.clock.of("means of the step"):
            return super().end_step(over_ranks)


class Clocked(EntropyGRPOTrainer):
    """A trainer that clocks its steps, its measures, and the facts they need."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._new_measures = lambda: ClockedMeasures(Clock())  # made anew when training starts
        of_vocabulary, contexts = self.seam.facts._of_vocabulary, self.seam._contexts
        gradient_sample = self.seam.gradient_sample

        def clocked_vocabulary(needs, *args):
            facts = {}
            for need in FULL[:3]:
                with self.measures.clock.of(need):
                    facts |= of_vocabulary({need} & needs, *args)
            return facts

        def clocked_contexts(batch):
            with self.measures.clock.of("samples per context"):
                return contexts(batch)

        def clocked_sample():
            with self.measures.clock.of("noise of the gradient"):
                return gradient_sample()

        self.seam.facts._of_vocabulary, self.seam._contexts = clocked_vocabulary, clocked_contexts
        self.seam.gradient_sample = clocked_sample

    def _generate_and_score_completions(self, inputs):
        with self.measures.clock.of("generation"):
            return super()._generate_and_score_completions(inputs)

    def training_step(self, *args, **kwargs):
        with self.measures.clock.of("step"):
            loss = super().training_step(*args, **kwargs)
        if self.accelerator.sync_gradients:
            self.measures.clock.end_step()
        return loss


def policy(given: argparse.Namespace, folder: str) -> str:
    if given.policy == "embedded":
        return str(data.EMBEDDED_POLICY)
    tokenizer = AutoTokenizer.from_pretrained(str(data.EMBEDDED_POLICY))
    tokenizer.save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=given.vocabulary,
        hidden_size=given.hidden,
        intermediate_size=4 * given.hidden,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", choices=("embedded", "random"), default="embedded")
    sizes = {"steps": 20, "rows": 128, "length": 12, "accumulation": 1, "vocabulary": 32000, "hidden": 256}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        args = EntropyGRPOConfig(
            output_dir=folder,
            max_steps=given.steps + 3,
            per_device_train_batch_size=given.rows,
            gradient_accumulation_steps=given.accumulation,
            num_generations=given.rows if given.rows < 8 else 8,
            max_completion_length=given.length,
            temperature=0.9,  # at 1 its entropy costs nothing
            **QUIET,
            entropy_measures="full",
        )
        trainer = Clocked(policy(given, folder), math_verify_reward, args=args, train_dataset=data.train_problems())
        trainer.train()
    clocked = trainer.measures.clock.steps[3:]  # the first are warm-up
    names = [name for name in clocked[0] if name not in ("step", "generation")]
    inside = [name for name in names if name not in OF_ROLLOUT]
    steps = [step["step"] - step["generation"] - sum(step[name] for name in inside) for step in clocked]
    shares = {
        name: statistics.median(s[name] / base for s, base in zip(clocked, steps, strict=True)) for name in names
    }
    print(f"{vars(given)}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"step without generation and measures: {statistics.median(steps):.3f} s, median of {len(steps)}\n")
    print("| measure | share of a step |\n|---|---|")
    for name, share in shares.items():
        print(f"| {name} | {share:.3%} |")
    of_all = statistics.median(base / (base + s["generation"]) for s, base in zip(clocked, steps, strict=True))
    full = sum(shares[name] for name in FULL)
    for name, share in (("basic together", sum(shares.values()) - full), ("full, beside it", full)):
        print(f"| {name} | {share:.3%}; with generation {share * of_all:.3%} |")
    print(json.dumps(shares))


if __name__ == "__main__":
    main()
