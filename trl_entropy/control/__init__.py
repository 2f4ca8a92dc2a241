"""Laws, the knobs that they turn, and what they look at: numbers only."""
