"""
The tables of the pages from the numbers of `make bench`.

    python benchmarks/tables.py [--data docs/data/bench.json]   # print them
    python benchmarks/tables.py --write                         # put them into the pages
"""

import argparse
import json
from pathlib import Path

from pages import filled, table


REPOSITORY = Path(__file__).parent.parent
DATA = REPOSITORY / "docs" / "data" / "bench.json"
GPU_DATA = REPOSITORY / "docs" / "data" / "bench_gpu.json"
PAGES = (REPOSITORY / "README.md", REPOSITORY / "docs" / "performance.md")
OFF_POLICY = "fast_step, off_policy_updates=2"


def interval(ratio: dict) -> str:
    return f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})"


def against(goal: float, value: float) -> str:
    """The goal, and whether the value is at most that."""
    return f"{goal:g}, {'met' if value <= goal else 'not met'}"


def machine(of: dict) -> str:
    return (
        f"{of['device']}, {of['cores']} cores, {of['threads']} thread, load {of['load']} at the start; "
        f"torch {of['torch']}, transformers {of['transformers']}, TRL {of['trl']}."
    )


def validity(ratio: dict, valid: bool) -> str:
    said = "so the ratios count" if valid else "**so the ratios do not count**"
    return f"TRL against TRL: {interval(ratio)}, {said}."


def overhead(report: dict) -> list[str]:
    goal, micro_batches = report["goal"], report["size"]["micro_batches"]
    most = (f"operations a micro-batch (goal {goal['operations']})", f"syncs a micro-batch (goal {goal['syncs']})")
    counts = [*most, "syncs at the end of a step", "syncs a rollout"]
    rows = [["arm", "time, TRL = 1", "goal", "own code, of a step of TRL", *counts]]
    for name, arm in report["arms"].items():
        if name != "TRL again":
            inside, end, rollout = (arm["added"][part] for part in ("micro-batches", "end of the step", "rollout"))
            rows.append(
                [
                    name,
                    interval(arm["ratio"]),
                    against(goal["ratio"], arm["ratio"]["high"]),
                    f"{arm['own seconds'] / report['TRL']['seconds']:.2%}",
                    f"{inside['operations'] / micro_batches:+.0f}",
                    f"{inside['syncs'] / micro_batches:+.0f}",
                    f"{end['syncs']:+d}",
                    f"{rollout['syncs']:+d}",
                ]
            )
    theirs = report["TRL"]["counts"]
    share = report["TRL"]["floor"] / report["TRL"]["seconds"]
    return [
        machine(report["machine"]),
        validity(report["arms"]["TRL again"]["ratio"], report["valid"]),
        f"A step of TRL: {report['TRL']['seconds']:.3f} s, of which {share:.0%} for its matrix products alone; "
        f"{theirs['micro-batches']['syncs'] / micro_batches:.0f} syncs a micro-batch, "
        f"{theirs['rollout']['syncs']} a rollout.",
        "",
        *table(*rows),
    ]


def fast_step(report: dict) -> list[str]:
    names = list(next(iter(report["arms"].values()))["ways"])
    rows = [["groups without advantage", *names, "goal"]]
    furthest = 0.0
    for share, arm in report["arms"].items():
        ratios = [way["ratio"] for way in arm["ways"].values()]
        furthest = max(furthest, *(way["gradient"] for way in arm["ways"].values()))
        met = [name for name, way in arm["ways"].items() if way["ratio"]["high"] <= arm["goal"]]
        said = f"{arm['goal']:g}, met by {met[0]}" if met else f"{arm['goal']:g}, not met"
        rows.append([f"{float(share):.0%}", *map(interval, ratios), said])
    lines = [
        machine(report["machine"]),
        validity(report["TRL again"], report["valid"]),
        f"Completions of {report['mean']:.0f} tokens on average, of {report['longest']} at most. "
        f"The gradient differs by {furthest:.0e} of its length at most.",
        "",
        *table(*rows),
    ]
    if "small tiles" in report:
        lines += ["", f"LM head on small tiles, its own = 1: {interval(report['small tiles'])}."]
    return lines


def memory(report: dict) -> list[str]:
    size, rows = report["size"], [["arm", "MB", "TRL = 1", "goal", "seconds"]]
    for name, arm in report["arms"].items():
        goal = report["goals"].get(name)
        reached = "" if goal is None or "ratio" not in arm else against(goal, arm["ratio"])
        ratio = f"{arm['ratio']:.2f}" if "ratio" in arm else ""
        rows.append([name, f"{arm['bytes'] / 1e6:.0f}", ratio, reached, f"{arm['seconds']:.1f}"])
    return [
        machine(report["machine"]),
        f"{size['rows']} completions of {size['length']} tokens, {size['vocabulary']} entries of the vocabulary.",
        "",
        *table(*rows),
    ]


def growth(report: dict) -> list[str]:
    rows = [["with", "from", "to", "ms from", "ms to", "slope", "goal", "bytes to other ranks, a step"]]
    for axis, found in report["axes"].items():
        points = found["points"]
        first, last = list(points)[0], list(points)[-1]
        sent = sorted({point["bytes"] for point in points.values()})
        rows.append(
            [
                axis,
                first,
                last,
                *(f"{1e3 * points[at]['seconds']:.1f}" for at in (first, last)),
                f"{found['slope']:.2f}",
                against(found["goal"], found["slope"] - report["tolerance"]),
                " to ".join(map(str, dict.fromkeys((sent[0], sent[-1])))),
            ]
        )
    return [machine(report["machine"]), "", *table(*rows)]


def grading(report: dict) -> list[str]:
    rows = [["batch", "pairs", "TRL", "stock pool", "this package", "TRL / ours", "stock / ours", "differ from TRL"]]
    for name in ("easy", "distinct", "hard", "alike"):
        batch = report.get(name)
        if batch:
            took = (f"{batch['seconds'][f'{who} first']['median']:.2f} s" for who in ("TRL", "stock", "ours"))
            times = (f"{batch['ratio'][f'{who} / ours first']['median']:.1f}" for who in ("TRL", "stock"))
            rows.append([name, batch["pairs"], *took, *times, len(batch["differ"])])
    lines = [f"{report['cores']} cores, {report['workers']} processes each.", "", *table(*rows)]
    hostile = report.get("hostile")
    if hostile:
        rows = [["hostile batch", "seconds", "bound", "wrong verdicts on the rest", "processes left"]]
        took = hostile["TRL"].get("seconds")
        rows.append(["TRL", f"{took:.1f}" if took else next(iter(hostile["TRL"])), "", "", ""])
        for name, arm in hostile.items():
            if isinstance(arm, dict) and name != "TRL":
                bound = f"{arm['bound']:.0f}" if "bound" in arm else ""
                rows.append([name, f"{arm['seconds']:.1f}", bound, arm["wrong"], arm["processes left"]])
        lines += ["", f"{hostile['pairs']} pairs, {hostile['hostile']} of them hostile:", "", *table(*rows)]
    return lines


def headline(report: dict) -> list[str]:
    """What the README says."""
    rows = [["", "TRL = 1"]]
    for name in ("no rule", "confident_sign"):
        rows.append([f"time of a step, {name}", f"{report['overhead']['arms'][name]['ratio']['median']:.2f}"])
    for share, arm in report["fast_step"]["arms"].items():
        at_once, later = (arm["ways"][name]["ratio"]["median"] for name in ("fast_step", OFF_POLICY))
        groups = f"{float(share):.0%} of the groups without advantage"
        rows.append(
            [f"time of a step, `fast_step`, {groups}", f"{at_once:.2f}; {later:.2f} with `off_policy_updates` 2"]
        )
    small = report["memory"]["arms"]["package, small tiles"]["ratio"]
    rows.append(
        [
            f"memory of a step on a CPU, small tiles, vocabulary {report['memory']['size']['vocabulary']:,}",
            f"{small:.2f}",
        ]
    )
    for name in ("easy", "hard"):
        rows.append(
            [
                f"time of the verifier, {name}",
                f"{1 / report['grading'][name]['ratio']['TRL / ours first']['median']:.2f}",
            ]
        )
    return table(*rows)


TABLES = {"overhead": overhead, "fast_step": fast_step, "memory": memory, "growth": growth, "grading": grading}


def updated(page: str, report: dict) -> str:
    """The page with its tables made anew."""
    made = {name: lambda name=name: TABLES[name](report[name]) for name in TABLES}
    return filled(page, {**made, "headline": lambda: headline(report)})


def write(report: dict) -> None:
    for page in PAGES:
        page.write_text(updated(page.read_text(), report))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="the JSON file, or a folder with one for each part")
    parser.add_argument("--write", action="store_true", help="into the pages")
    flags = parser.parse_args()
    files = {name: flags.data / f"{name}.json" for name in TABLES} if flags.data.is_dir() else {}
    report = {name: json.loads(path.read_text()) for name, path in files.items() if path.is_file()}
    report = report or json.loads(flags.data.read_text())
    if flags.write:
        write(report)
        return
    for name, lines in TABLES.items():
        if name in report:
            print(f"{name}\n\n" + "\n".join(lines(report[name])) + "\n")


if __name__ == "__main__":
    main()
