"""Names that need no torch: of a knob, and of TRL's metrics."""

LEARNING_RATE_SCALE = "learning_rate_scale"
# The bounds of the clip range, and TRL's metric for the share of tokens beyond each. A loss without such a bound
# (cispo, sapo, vespo) does not log it
CLIP_RATIOS = {"epsilon_low": "clip_ratio/low_mean", "epsilon_high": "clip_ratio/high_mean"}
