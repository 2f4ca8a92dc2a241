"""The error for a TRL that does not do what the seam relies on."""

UNSUPPORTED = "This TRL version is not supported; docs/architecture.md lists what trl-entropy relies on"
UNREAD = (
    "TRL computed a loss without reading `advantages` after the forward pass of the policy, so no rule could act. "
    f"{UNSUPPORTED}"
)


class SeamError(RuntimeError):
    """TRL does not do what the seam relies on, so the run would not do what its flags say."""
