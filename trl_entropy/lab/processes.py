"""What a process that trains one of several runs begins with."""

import multiprocessing
import os
import threading


def start_worker(threads: int = 1) -> None:
    """Set torch's threads, show no progress bars of transformers, and end if the parent is killed."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(threads)
    logging.disable_progress_bar()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)  # nobody waits for this run any more
