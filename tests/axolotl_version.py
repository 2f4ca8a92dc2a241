"""Run the tests of the plugin for Axolotl, in an environment of its own under `.venvs`; see `make test-axolotl`."""

import argparse
import sys

from trl_versions import environment, tested


AXOLOTL = "0.21.0"
# What Axolotl's GRPO imports on a CPU, in the versions that it pins. Its other requirements are GPU kernels, whose
# wheels bring CUDA, and clients of clouds; it also requires Python 3.12, which its GRPO does not need.
NEEDED = [
    "trl==1.14.1",
    "transformers==5.20.1",
    "peft==0.21.2",
    "accelerate==1.15.0",
    "datasets==5.0.1",
    "pydantic==2.13.5",
    "addict",
    "bitsandbytes",
    "colorama",
    "einops",
    "evaluate==0.4.1",
    "fastcore",
    "fire",
    "numba",
    "pillow",
    "posthog==6.7.11",
    "python-dotenv==1.0.1",
    "requests",
    "wandb",
]
PARTS = [f"axolotl=={AXOLOTL}", "axolotl-contribs-lgpl==0.0.7", "axolotl-contribs-mit==0.0.6"]
ITSELF = ["--no-deps", "--ignore-requires-python", *PARTS]


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 if all pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", required=True, help="version of torch")
    folder = environment(f"axolotl-{AXOLOTL}", parser.parse_args(arguments).torch, NEEDED, ITSELF)
    passed, line = tested(folder, ["tests/integrations/test_axolotl.py"])
    print(f"axolotl {AXOLOTL}: {line}" + ("" if passed else f" ({folder / 'pytest.log'})"), flush=True)
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
