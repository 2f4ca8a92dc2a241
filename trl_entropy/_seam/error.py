"""What is raised where TRL no longer does what the seam relies on."""

UNSUPPORTED = "This TRL version is not supported; see docs/architecture.md for what is relied on"
UNREAD = f"TRL computed a loss without reading `advantages`, so no weight could act. {UNSUPPORTED}"


class SeamError(RuntimeError):
    """TRL no longer computes its loss in the order the seam relies on, so that the rules could not act."""
