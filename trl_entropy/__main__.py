"""The entry point of `python -m trl_entropy` and `accelerate launch -m trl_entropy`."""

from trl_entropy.commands.cli import main


if __name__ == "__main__":
    main()
