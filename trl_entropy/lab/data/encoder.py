"""Embeddings of problems by a language model."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from ...data.files import first_line, model_path


BATCH_SIZE = 32  # ours
LONGEST = 512  # tokens; the rest of a problem is left out (ours)


@torch.no_grad()
def embed_encoder(texts: Sequence[str], name: str) -> np.ndarray:
    """
    Mean of the last hidden states of each text, as rows of length 1, `(N, D)`.

    Args:
        texts (`Sequence[str]`):
            The problems.
        name (`str`):
            Folder or name on the hub of a model of transformers, or "embedded".

    Raises `ValueError` if it cannot be loaded.
    """
    path = model_path(name, "encoder")
    try:
        tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"the encoder {name!r} cannot be loaded: {first_line(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    model = model.to(device).eval()
    by_length = sorted(range(len(texts)), key=lambda row: len(texts[row]))  # little padding
    means = {}
    for start in range(0, len(texts), BATCH_SIZE):
        chosen = by_length[start : start + BATCH_SIZE]
        batch = tokenizer(
            [texts[row] for row in chosen], padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        ).to(device)
        states = model(**batch).last_hidden_state.float()
        mask = batch["attention_mask"].unsqueeze(-1)
        sums = torch.where(mask.bool(), states, 0.0).sum(1)
        means.update(zip(chosen, normalize(sums, dim=-1).cpu().numpy(), strict=True))
    return np.stack([means[row] for row in range(len(texts))])
