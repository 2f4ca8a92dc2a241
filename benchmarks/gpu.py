"""
What only a GPU shows, within twelve minutes; every result is in FOLDER as soon as it is there.

    benchmarks/gpu.sh [FOLDER] [--minutes 12] [--parts overhead fast_step memory study] [flags of a size]

    overhead    what is added to a step of TRL: time, operations, GPU syncs      overhead.json
    fast_step   its time at several shares of the groups without an advantage    fast_step.json
    memory      peak memory and time of a step, arm by arm                       memory.json
    study       as many runs of `python -m study --language_model --gpu` as fit  study.jsonl

The first three take a policy of the size of Qwen2.5-1.5B with random weights, in bf16; other flags are theirs, as
--device cpu or --hidden 64. FOLDER is $OUT or out/gpu by default. summary.json says how each part ended, log.txt what
it said. A part that fails or takes too long stops no other; the exit code is 1 if there is one, and 2 if nothing could
begin. Nothing is fetched.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path


ENVIRONMENT = {
    **{"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"},
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
}
NEEDED = "import psutil, trl_entropy.commands.grpo"
ARMS = ("TRL", "measures", "entropy bonus", "fast step", "TRL, entropy bonus", "advantage bonus", "full logits")
# The flags of each, at which a part of Qwen2.5-1.5B is as large as its minutes allow
PARTS = {
    "overhead": {"rows": 4, "length": 1024},
    "fast_step": {"rows": 4, "micro_batches": 4, "group": 4, "length": 1024},
    "memory": {"rows": 4, "micro_batches": 4, "repeats": 4, "no_advantage": 0.5},
    "study": {},
}
MINUTES = {"overhead": 2.0, "fast_step": 2.0, "memory": 3.0}
# What the study reads, and how to get it
FOLDERS = {
    "smollm2": ("config.json", "trl-entropy fetch-smollm2"),
    "chain_sum": ("train.jsonl", "trl-entropy make-chain-sum"),
}
RUNS = Path("study", "runs")
GRACE = 20  # seconds that a part has to end, after its minutes, besides those in which it starts


def main() -> int:
    arguments = sys.argv[1:]
    given = arguments.pop(0) if arguments and not arguments[0].startswith("-") else os.environ.get("OUT")
    folder = Path(given or "out/gpu").resolve()
    os.chdir(Path(__file__).parent.parent)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--minutes", type=float, default=12.0, help="of all parts; the study has what is left")
    for part, minutes in MINUTES.items():
        parser.add_argument(f"--{part}_minutes", type=float, default=minutes)
    parser.add_argument("--jobs", type=int, default=8, help="runs of the study at once")
    for name in FOLDERS:
        parser.add_argument(f"--{name}", type=Path, help=f"a folder that out/{name} becomes a link to")
    flags, sizes = parser.parse_known_args(arguments)
    for name in ("minutes", *(f"{part}_minutes" for part in MINUTES)):
        if not 0 <= getattr(flags, name) < float("inf"):
            parser.error(f"--{name} must be a number >= 0, got {getattr(flags, name)}")
    if folder.exists() and not folder.is_dir():
        parser.error(f"the results go into a folder, and '{folder}' is a file: name another one")
    begin = time.time()
    loaded = subprocess.run([sys.executable, "-c", NEEDED], env=ENVIRONMENT, capture_output=True, text=True)
    if loaded.returncode != 0:
        said = loaded.stderr.strip().splitlines() or [f"exit code {loaded.returncode}"]
        print(f"{sys.executable}: {said[-1]}", file=sys.stderr)
        return 2
    grace = GRACE + 2 * (time.time() - begin)  # other parts may start more slowly
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the part that runs is ended too
    ended = {}
    for part in flags.parts:
        start, left = time.time(), begin + 60 * flags.minutes - time.time()
        limit = min(left, 60 * getattr(flags, f"{part}_minutes", flags.minutes) + grace)
        reason = absent(flags) if part == "study" else None
        if reason is None and limit <= grace:
            reason = "no time was left"
        if reason is None:
            reason = run(part, command(part, limit - grace, folder, flags, sizes), limit, folder, begin)
        ended[part] = {"failed": reason, "seconds": round(time.time() - start)}
        summary = {"minutes": flags.minutes, "seconds": round(time.time() - begin), "parts": ended}
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        print(f"{part}: {'failed: ' + reason if reason else 'done'} ({ended[part]['seconds']} s)", flush=True)
    failed = [part for part, end in ended.items() if end["failed"]]
    print(f"{len(ended) - len(failed)} of {len(ended)} parts done in {summary['seconds']} s; {folder}", flush=True)
    return int(bool(failed))


def absent(flags: argparse.Namespace) -> str | None:
    """Which folder of the study is missing."""
    for name, (file, how) in FOLDERS.items():
        folder, given = Path("out", name), getattr(flags, name)
        if given is not None and not folder.exists():
            folder.parent.mkdir(exist_ok=True)
            folder.symlink_to(given.resolve())
        if not (folder / file).is_file():
            return f"{folder}/{file} is missing: {how} {folder}"
    return None


def command(part: str, seconds: float, folder: Path, flags: argparse.Namespace, sizes: list[str]) -> list[str]:
    """What runs a part, and ends by itself after so many seconds."""
    minutes = ["--minutes", f"{seconds / 60:.3f}"]
    if part == "study":
        return ["-m", "study", "--language_model", "--gpu", "--only_train", "--jobs", str(flags.jobs), *minutes]
    own = [word for name, value in PARTS[part].items() for word in (f"--{name}", str(value))]
    arms = ["--drawn", "--arms", *ARMS] if part == "memory" else []
    return [f"benchmarks/{part}.py", *own, *sizes, *arms, *minutes, "--out", str(folder / f"{part}.json")]


def run(part: str, arguments: list[str], limit: float, folder: Path, begin: float) -> str | None:
    """Run a part for so many seconds at most; why it failed."""
    end = time.monotonic() + limit
    with (folder / "log.txt").open("a") as log:
        print(f"== {part}", file=log, flush=True)
        at = log.tell()
        process = subprocess.Popen(
            [sys.executable, *arguments], env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True
        )
        try:
            while process.poll() is None and time.monotonic() < end:
                collect(folder, begin)
                time.sleep(0.5)
        finally:
            if late := process.poll() is None:
                end_group(process)
    collect(folder, begin)
    if late:
        return f"ended after {limit:.0f} s"
    said = (folder / "log.txt").read_bytes()[at:].decode(errors="replace").strip().splitlines()
    return f"{(said or ['it said nothing'])[-1]} (exit code {process.returncode})" if process.returncode else None


def end_group(process: subprocess.Popen) -> None:
    """End a process and all that it has started."""
    os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def collect(folder: Path, begin: float) -> None:
    """The runs of the study's files that have changed since the beginning."""
    files = [path for path in sorted(RUNS.glob("*.jsonl")) if path.stat().st_mtime >= begin]
    if files:
        part = folder / "study.part"
        part.write_text("".join(path.read_text() for path in files))
        part.replace(folder / "study.jsonl")


if __name__ == "__main__":
    sys.exit(main())
