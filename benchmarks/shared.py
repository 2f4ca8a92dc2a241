"""What the benchmarks share: seconds, ratios with intervals, counts of operations, steps on a given batch."""

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, Qwen2Config
from trl import GRPOConfig, GRPOTrainer

import trl_entropy
from trl_entropy import EntropyGRPOConfig, EntropyGRPOTrainer, data
from trl_entropy.checks import minutes
from trl_entropy.lab.statistics import interval, resample


# Where a part runs if no flag says so
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}
# Where the ratio of two runs of the same thing has to lie for a part to count
VALID = (0.97, 1.03)


# Settings of a run that is only clocked: nothing is written or shown
QUIET = {
    "learning_rate": 1e-5,
    "report_to": "none",
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": DEVICE == "cpu",
    "bf16": False,
    "gradient_checkpointing": False,
}


class Size(NamedTuple):
    """A random policy and the batch of one optimizer step, and where and in what they are computed."""

    vocabulary: int = 1000
    hidden: int = 256
    layers: int = 4
    rows: int = 4
    micro_batches: int = 2
    group: int = 4
    length: int = 128
    device: str = "cpu"
    dtype: str = "float32"


# Qwen2.5-1.5B
LARGE = Size(151936, hidden=1536, layers=28, rows=8, group=8, length=2048, device="cuda", dtype="bfloat16")
# What is counted does not depend on sizes
SMALL = Size(vocabulary=100, hidden=16, layers=1, length=8)
MEDIAN, SIGMA = 0.156, 0.8  # of the lognormal; the median as a share of the longest


def drawn_lengths(size: Size) -> list[int]:
    """Lognormal lengths of the completions of an optimizer step, the same for the same size."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(size.rows * size.micro_batches, generator=generator)
    return (MEDIAN * size.length * (SIGMA * normal).exp()).long().clamp(2, size.length).tolist()


# Seconds


def now() -> float:
    """Seconds: of this process on a CPU, whatever else runs there; on a GPU after all that was asked of it."""
    if DEVICE == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def mark(device: str) -> float | torch.cuda.Event:
    """A point for [`between`]: the seconds of this process on a CPU, whatever else runs there; on a GPU an event."""
    if device == "cpu":
        return time.process_time()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def between(start: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    """Seconds from one mark to another; only here the host waits for a GPU."""
    if isinstance(start, float):
        return end - start
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def seconds(call: Callable, device: str = DEVICE) -> float:
    """Seconds of a call."""
    start = mark(device)
    call()
    return between(start, mark(device))


class Budget:
    """
    The minutes of a part, for work of these weights, which is done in their order.

    Args:
        minutes (`float`, *optional*):
            How many; by default there is no limit.
        weights (`Iterable[float]`):
            Of all the work there is.
    """

    def __init__(self, minutes: float | None, weights: Iterable[float]):
        self._end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._weights = list(weights)

    def next(self) -> float:
        """Seconds for the next piece of work: its share of what is left, 0 if nothing is."""
        share = self._weights[0] / sum(self._weights)
        del self._weights[0]
        return max(0.0, self._end - time.monotonic()) * share


def ratios(
    base: Callable, arms: dict[str, Callable], rounds: int, budget: float, device: str
) -> dict[str, list[float]]:
    """
    Seconds of each arm over those of `base`, round by round: base arm arm base, and then the other way round.

    Args:
        base (`Callable`):
            What is compared with.
        arms (`dict[str, Callable]`):
            What is compared, by name.
        rounds (`int`):
            At most so many rounds.
        budget (`float`):
            Seconds after which no further round begins; three are made in any case.
        device (`str`):
            Where they run.
    """
    for call in (base, *arms.values()):
        call()
    found, begin = {name: [] for name in arms}, time.monotonic()
    for at in range(rounds):
        if at >= 3 and time.monotonic() - begin > budget:
            break
        for name, arm in arms.items():
            first, second = (base, arm) if at % 2 == 0 else (arm, base)
            outer = seconds(first, device)
            inner = seconds(second, device) + seconds(second, device)
            outer += seconds(first, device)
            found[name].append(inner / outer if at % 2 == 0 else outer / inner)
    return found


def estimate(values: list[float]) -> dict[str, float]:
    """The median with its 95 % interval by bootstrap."""
    medians = [np.median(np.repeat(values, row.astype(int))) for row in resample(len(values), 2000)]
    low, high = interval(np.array(medians))
    return {"median": statistics.median(values), "low": low, "high": high, "rounds": len(values)}


def is_valid(same: dict[str, float]) -> bool:
    """Whether two runs of the same thing took the same time."""
    return VALID[0] <= same["median"] <= VALID[1]


def gemm_rate(device: str, dtype: str) -> float:
    """FLOP per second of a matrix product here, the best of five."""
    size = 8192 if device == "cuda" else 1024
    a, b = torch.randn(2, size, size, device=device, dtype=getattr(torch, dtype))
    a @ b
    return 2 * size**3 / min(seconds(lambda: a @ b, device) for _ in range(5))


def floor(model, positions: int, scored: int) -> float:
    """FLOP of forward and backward pass: 6 a weight and position, 8 in the LM head, which is computed twice."""
    head = model.get_input_embeddings().weight.numel()
    backbone = sum(parameter.numel() for parameter in model.parameters()) - head
    return 6.0 * backbone * positions + 8.0 * head * scored


# Operations


PACKAGE = str(Path(trl_entropy.__file__).parent) + os.sep
THEIRS = tuple(f"{os.sep}{name}{os.sep}" for name in ("trl", "transformers"))


def own_line() -> str | None:
    """The line of the package that is running; `None` if TRL or transformers runs, whoever called it."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(PACKAGE):
            return f"{path[len(PACKAGE) :]}:{frame.f_lineno}"
        if any(name in path for name in THEIRS):
            return None
        frame = frame.f_back
    return None


class Syncs:
    """How often the host waits for a GPU or copies to it, and at which lines of the package."""

    def __init__(self):
        self.number, self.lines = 0, Counter()

    def add(self) -> None:
        """One that happens now."""
        self.number += 1
        line = own_line()
        self.lines.update([] if line is None else [line])


class Counted(TorchDispatchMode):
    """Counts operations, and those among them that make the host wait for a GPU or copy to it."""

    WAIT = (
        "_local_scalar_dense",
        "bincount",
        "equal",
        "is_nonzero",
        "lift_fresh",
        "masked_select",
        "nonzero",
        "unique",
    )
    READ = ("cpu", "numpy", "tolist")  # on a CPU these are no operation

    def __init__(self):
        super().__init__()
        self.operations, self.syncs, self._reads = 0, Syncs(), False

    def __enter__(self):
        self._methods = {name: getattr(torch.Tensor, name) for name in self.READ}
        for name, method in self._methods.items():
            setattr(torch.Tensor, name, self._counting(method))
        return super().__enter__()

    def __exit__(self, *error):
        for name, method in self._methods.items():
            setattr(torch.Tensor, name, method)
        return super().__exit__(*error)

    def _counting(self, method: Callable) -> Callable:
        def read(*args, **kwargs):
            inside, self._reads = self._reads, True  # what waits in it is part of this one
            values = method(*args, **kwargs)
            self._reads = inside
            if not inside:
                self.syncs.add()
            return values

        return read

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.operations += 1
        if not self._reads and (by_mask or any(name.startswith(wait) for wait in self.WAIT)):
            self.syncs.add()
        return operation(*args, **(kwargs or {}))


def counted(call: Callable, device: str) -> dict[str, int | Counter]:
    """
    Operations and host syncs of a call, and at which lines of the package those are.

    On a GPU the syncs are those that CUDA has seen, in a second call.
    """
    with Counted() as counts:
        call()
    syncs = counts.syncs if device == "cpu" else cuda_syncs(call)
    return {"operations": counts.operations, "syncs": syncs.number, "lines": syncs.lines}


def cuda_syncs(call: Callable) -> Syncs:
    """The host syncs of a call that CUDA has seen: torch warns of each."""
    syncs = Syncs()

    def show(message, *args, **kwargs) -> None:
        if "synchronizing CUDA operation" in str(message):
            syncs.add()

    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = show
            call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return syncs


def added(arm: dict[str, int | Counter], base: dict[str, int | Counter]) -> dict[str, int | Counter]:
    """What an arm counts more than `base`."""
    return {name: arm[name] - base[name] for name in base}


# Optimizer steps


class Given(GRPOTrainer):
    """TRL's trainer on completions of given lengths, of random words."""

    lengths: list[int] = []

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        generator, words = torch.Generator().manual_seed(0), self.model.config.vocab_size
        end = [self._tokenizer.eos_token_id]
        drawn = (torch.randint(2, words, (length - 1,), generator=generator) for length in self.lengths)
        return [ids.tolist() + end for ids in drawn], None


class EntropyGiven(EntropyGRPOTrainer, Given):
    """The package's trainer on given completions."""


class Clocked(EntropyGiven):
    """Keeps the seconds that the package's own code takes in each step, and the bytes that it sends to other ranks."""

    _inside, sent = False, 0

    def __init__(self, *args, **kwargs):
        self._parts, self._steps = [], []
        super().__init__(*args, **kwargs)
        facts = self.seam.facts
        for name in ("tokens", "look_ahead"):
            setattr(facts, name, self._clocked()(getattr(facts, name)))
        self._reduce, facts.sum_over_ranks = facts.sum_over_ranks, self._counted

    @property
    def own(self) -> list[float]:
        """The seconds of each step."""
        return [sum(between(*part) for part in parts) for parts in self._steps]

    @contextmanager
    def _clocked(self):
        if self._inside:
            yield
            return
        self._inside, start = True, mark(self.args.device.type)
        yield
        self._parts.append((start, mark(self.args.device.type)))
        self._inside = False

    def effective_advantages(self, *args):
        with self._clocked():
            return super().effective_advantages(*args)

    def extra_loss(self, *args):
        with self._clocked():
            return super().extra_loss(*args)

    def observe(self, *args):
        with self._clocked():
            super().observe(*args)

    def end_step(self):
        with self._clocked():
            super().end_step()
        self._steps.append(self._parts)
        self._parts = []

    def _counted(self, values):
        self.sent += values.numel() * values.element_size()
        return self._reduce(values)


def policy(size: Size) -> PreTrainedModel:
    """A random Qwen2 with one embedding for both ends."""
    torch.manual_seed(0)
    heads = max(1, size.hidden // (128 if size.hidden >= 1024 else 64))
    config = Qwen2Config(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=8960 if size.hidden == LARGE.hidden else 4 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=heads,
        num_key_value_heads=2 if heads % 2 == 0 else 1,
        tie_word_embeddings=True,
    )
    with torch.device(size.device):  # a core takes long to draw the weights of a large one
        return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, size.dtype))


class Step:
    """
    One optimizer step of a trainer, again and again on the same batch, at a learning rate of 0.

    Args:
        size ([`Size`]):
            The policy and the batch.
        lengths (`list[int]`):
            Tokens of the completions, group by group.
        no_advantage (`float`):
            The share of the groups in which all completions get the same reward.
        settings:
            Flags of the package; none for TRL's own trainer.

    Attributes:
        trainer: the trainer, which has sampled.
        sampled (`dict[str, int]`): operations and host syncs of that, without those of generation.
    """

    def __init__(self, size: Size, lengths: list[int], no_advantage: float = 0.0, plain=None, kind=None, **settings):
        plain = not settings if plain is None else plain
        self.folder = tempfile.TemporaryDirectory()
        live = len(lengths) // size.group - round(no_advantage * len(lengths) / size.group)

        def reward(completions, **kwargs) -> list[float]:
            return [float(row % 2 == 0 and row // size.group < live) for row in range(len(completions))]

        config = GRPOConfig if plain else EntropyGRPOConfig
        args = config(
            output_dir=self.folder.name,
            max_steps=1000,
            per_device_train_batch_size=size.rows,
            gradient_accumulation_steps=size.micro_batches,
            num_generations=size.group,
            max_completion_length=size.length,
            learning_rate=0.0,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=size.device == "cpu",
            bf16=size.dtype == "bfloat16",
            gradient_checkpointing=False,
            **settings,
        )
        prompts = [f"{row + 100}=" for row in range(len(lengths) // size.group)]
        self.rows = [{"prompt": prompt} for prompt in prompts for _ in range(size.group)]
        self.trainer = (kind or (Given if plain else EntropyGiven))(
            model=policy(size),
            reward_funcs=reward,
            args=args,
            train_dataset=Dataset.from_dict({"prompt": [str(problem) for problem in range(64)]}),
            processing_class=AutoTokenizer.from_pretrained(str(data.EMBEDDED_POLICY)),
        )
        self.trainer.lengths = lengths
        self.trainer.current_gradient_accumulation_steps = size.micro_batches
        self.trainer.state.max_steps = args.max_steps
        self.trainer.model.train()
        self.device = size.device
        self.sampled = counted(self._sample, self.device)
        self.trainer.num_iterations = 10**9  # the batch stays

    def _sample(self) -> None:
        torch.manual_seed(0)  # TRL shuffles
        self.trainer._step, self.trainer._buffered_inputs = 0, None
        self.trainer._prepare_inputs(self.rows)

    @property
    def batches(self) -> list[dict]:
        """The micro-batches of the optimizer step."""
        return self.trainer._buffered_inputs[: self.trainer.args.gradient_accumulation_steps]

    def __call__(self) -> None:
        self.losses()
        trainer = self.trainer
        trainer.callback_handler.on_step_end(trainer.args, trainer.state, trainer.control)

    def losses(self, ends: bool = True) -> None:
        """Losses and backward passes of all micro-batches, the last of which may end the optimizer step."""
        trainer = self.trainer
        trainer.model.zero_grad()
        trainer._step = trainer.args.steps_per_generation
        for micro_batch in range(trainer.args.gradient_accumulation_steps):
            last = micro_batch == trainer.args.gradient_accumulation_steps - 1
            trainer.accelerator.gradient_state._set_sync_gradients(last and ends)
            trainer.training_step(trainer.model, self.rows, None)

    def gradient(self) -> torch.Tensor:
        """The gradient of the step, in one piece."""
        self.losses()
        return torch.cat([parameter.grad.flatten().float() for parameter in self.trainer.model.parameters()])

    def counts(self) -> dict[str, dict[str, int]]:
        """Operations and host syncs: of all micro-batches, and of the end of the optimizer step."""
        self()
        whole = counted(self, self.device)
        parts = counted(lambda: self.losses(ends=False), self.device)
        self()
        return {"micro-batches": parts, "end of the step": added(whole, parts)}


# Reports


def machine(device: str = DEVICE) -> dict:
    """What the numbers depend on."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        **{name: version(name) for name in ("torch", "transformers", "trl")},
        "trl-entropy": trl_entropy.__version__,
    }


def flags_of(doc: str) -> argparse.ArgumentParser:
    """The flags that every part has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller, and fewer rounds")
    parser.add_argument("--out", type=Path, help="a JSON file for the report, which is printed else")
    return parser


def given(parser: argparse.ArgumentParser, on_cpu: Size, on_gpu: Size) -> argparse.Namespace:
    """Read these flags, and those of a size into `size`; its defaults are one of two, by the device."""
    parser.add_argument("--minutes", type=minutes, help="after which nothing more is begun; what is there is kept")
    parser.add_argument("--device", choices=DTYPES, default=DEVICE)
    parser.add_argument("--dtype", choices=DTYPES.values(), help="by default bfloat16 on a GPU, else float32")
    numbers = [name for name, kind in Size.__annotations__.items() if kind is int]
    for name in numbers:
        parser.add_argument(f"--{name}", type=int)
    flags = parser.parse_args()
    if flags.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here; give cpu")
    asked = {name: getattr(flags, name) for name in numbers if getattr(flags, name) is not None}
    flags.size = (on_cpu if flags.device == "cpu" else on_gpu)._replace(
        **asked, device=flags.device, dtype=flags.dtype or DTYPES[flags.device]
    )
    return flags


def keep(report: dict, out: Path | None) -> None:
    """Write what there is of a report, so that it is there whatever happens next."""
    if out is not None:
        part = out.with_suffix(".part")
        part.write_text(json.dumps(report, indent=2) + "\n")
        part.replace(out)


def finish(report: dict, out: Path | None) -> None:
    """Write the report, or print it."""
    keep(report, out)
    if out is None:
        print(json.dumps(report, indent=2))
