"""The advantages that TRL reads: computed late, and per token."""

from collections.abc import Callable

import torch
from torch import Tensor


class LateAdvantages(dict):
    """
    TRL's batch, except that `advantages` is computed when it is first read after the forward pass.

    A read before that gets TRL's own value.
    """

    def __init__(self, inputs: dict, known: Callable[[], bool], decide: Callable[[Tensor], Tensor]):
        super().__init__(inputs)
        self._known = known
        self._decide = decide
        self._decided: Tensor | None = None

    def __getitem__(self, key):
        raw = super().__getitem__(key)
        if key != "advantages" or not self._known():
            return raw
        if self._decided is None:
            decided = self._decide(raw)
            is_new = decided is not raw and decided.dim() == 2
            self._decided = decided.as_subclass(TokenAdvantages) if is_new else decided
        return self._decided


class TokenAdvantages(Tensor):
    """
    Advantages that stay `(B, T)` if TRL adds a token dimension because it expects `(B,)`.

    GRPOTrainer only adds it if it is missing, and calls advantages per token "not on the roadmap". A trainer that
    always adds it would turn them into `(B, 1, T)` and, without an error, compute a loss over `(B, B, T)`.
    """

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
            own = args[0] if args else (kwargs or {}).get("input")
            if func in ADD_DIMENSION and isinstance(own, cls) and own.dim() == 2:
                rows, columns = own.shape
                if result.shape in ((rows, 1, columns), (rows, columns, 1), (rows * columns, 1)):
                    return own.as_subclass(Tensor)
            return result

    def __deepcopy__(self, memo):
        return self.as_subclass(Tensor).clone()


ADD_DIMENSION = {
    Tensor.unsqueeze,
    torch.unsqueeze,
    Tensor.__getitem__,  # advantages[:, None]
    Tensor.view,  # advantages.view(-1, 1)
    Tensor.reshape,
    torch.reshape,
}
