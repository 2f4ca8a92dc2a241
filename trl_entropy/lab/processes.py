"""Set up a process that trains one of several runs."""

import multiprocessing
import os
import threading


def start_worker(threads: int = 1) -> None:
    """Set torch's threads, hide transformers' progress bars, and end this process if the parent is killed."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(threads)
    logging.disable_progress_bar()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)  # nothing waits for this run any more
