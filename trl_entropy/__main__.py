"""`python -m trl_entropy`, and what `accelerate launch -m trl_entropy` starts."""

from trl_entropy.commands.cli import main


if __name__ == "__main__":
    main()
