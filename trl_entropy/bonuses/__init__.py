"""Bonuses per token that are added to the advantage: `A' = (prod_i w_i) * A + sum_j b_j`."""

BONUSES = {}
