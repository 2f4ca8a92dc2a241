"""Run tests on supported versions of TRL, each in an environment of its own under `.venvs`; see `make test-trl`."""

import argparse
import subprocess
import sys
import venv
from pathlib import Path

from trl_entropy.families import TRL_VERSIONS


REPOSITORY = Path(__file__).parent.parent


def installed(version: str, torch: str) -> Path:
    """The folder of the environment with this TRL and the project; made anew after pyproject.toml has changed."""
    # TRL < 1.14 imports requests without requiring it
    return environment(f"trl-{version}", torch, [f"trl=={version}", "requests"])


def environment(name: str, torch: str, *others: list[str]) -> Path:
    """A folder with torch, and with the project beside the first of `others`; each is what one pip installs."""
    folder = REPOSITORY / ".venvs" / name
    done, project = folder / "installed", REPOSITORY / "pyproject.toml"
    if not done.exists() or done.stat().st_mtime < project.stat().st_mtime:
        venv.create(folder, clear=True, with_pip=True)
        with_project = ["--editable", f"{REPOSITORY}[dev]", *others[0]]
        for packages in ([f"torch=={torch}"], with_project, *others[1:]):
            subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", *packages], check=True)
        done.touch()
    return folder


def tested(folder: Path, tests: list[str]) -> tuple[bool, str]:
    """Whether the tests pass in this environment, and the last line of pytest; all lines are in `pytest.log` there."""
    command = [str(folder / "bin" / "python"), "-m", "pytest", "-n", "2", "-q", *tests]
    with open(folder / "pytest.log", "w") as log:
        done = subprocess.run(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT)
    lines = (folder / "pytest.log").read_text().splitlines()
    return done.returncode == 0, lines[-1] if lines else "no output"


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0 if all pass on all versions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", nargs="+", default=TRL_VERSIONS)
    parser.add_argument("--tests", nargs="*", default=[])
    parser.add_argument("--torch", required=True, help="version of torch")
    given = parser.parse_args(arguments)
    failed = 0
    for version in given.versions:
        folder = installed(version, given.torch)
        passed, line = tested(folder, given.tests)
        failed += not passed
        print(f"trl {version}: {line}" + ("" if passed else f" ({folder / 'pytest.log'})"), flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
