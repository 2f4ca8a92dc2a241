"""Two real processes on this machine, and what accelerate makes of a launch config."""

import argparse
import json
import os
from pathlib import Path

from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from processes import TESTS, run_script


CONFIGS = TESTS.parent / "recipes" / "accelerate"


def launch(backend: str, model_dir: str, folder: Path, timeout: int = 200) -> list[dict]:
    """What each of two ranks of `distributed_run.py` has found."""
    done = run_script(TESTS / "distributed_run.py", backend, model_dir, folder, ranks=2, timeout=timeout)
    assert done.returncode == 0, done.stderr[-6000:]
    return [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(2)]


def launched(config: str, *flags: str) -> tuple[argparse.Namespace, dict[str, str]]:
    """What `accelerate launch` makes of one of the configs: its arguments, and what it sets in the environment."""
    command = ["--config_file", str(CONFIGS / f"{config}.yaml"), *flags, "-m", "trl_entropy"]
    args, defaults, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        environment = prepare_deepspeed_cmd_env(args)[1]
    else:
        environment = prepare_multi_gpu_env(args)
    ours = {name: value for name, value in environment.items() if name.startswith(("ACCELERATE_", "FSDP_"))}
    return args, {name: value for name, value in ours.items() if os.environ.get(name) != value}
