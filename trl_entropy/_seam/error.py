"""What is raised where TRL no longer does what the seam relies on."""

UNSUPPORTED = "This TRL version is not supported; see docs/architecture.md for what is relied on"
UNREAD = (
    "TRL computed a loss without reading `advantages` after the forward pass of the policy, so no rule could act. "
    f"{UNSUPPORTED}"
)


class SeamError(RuntimeError):
    """TRL no longer computes its loss in the order the seam relies on, so that the rules could not act."""
