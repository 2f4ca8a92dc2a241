"""
Run and score the function `build_model(x_train, y_train)` that a policy writes.

The grading server calls `prepared`, and its workers fork from it; the trainer runs none of this.
"""

import json
import signal
import tempfile
import warnings
from collections.abc import Callable

import numpy as np
from sklearn import datasets, ensemble, linear_model, neighbors, pipeline, preprocessing, svm, tree  # noqa: F401
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from ..rewards.fence import check_fence, fenced


TABLES = {
    "breast_cancer": datasets.load_breast_cancer,
    "digits": datasets.load_digits,
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
}
SPLITS = 5
LONGEST = 300  # characters of an error message


def prepared() -> Callable[[str, str], str]:
    """
    The function for verdicts on a table and code: JSON with `score` or `error`.

    Raises `RuntimeError` if code cannot be fenced in.
    """
    check_fence()
    folder = tempfile.TemporaryDirectory(prefix="build_model_")  # the server's: it outlives a killed worker
    if fenced(_opens_a_socket, folder.name) != b"refused":
        raise RuntimeError("the policy's code could reach the network: this kernel did not accept the filter")

    def verdict(name: str, code: str) -> str:
        try:
            return json.dumps({"score": score(name, code, folder.name)})
        except (RuntimeError, ValueError) as error:
            return json.dumps({"error": " ".join(str(error).split())[:LONGEST]})

    return verdict


def _opens_a_socket() -> bytes:
    import socket

    try:
        socket.socket().close()
    except PermissionError:
        return b"refused"
    return b"open"


def score(name: str, code: str, folder: str) -> float:
    """
    Mean ROC-AUC over five random halves of a table; with several classes, of each against the rest.

    The code sees the features of the test half but never its labels: it returns probabilities, which are scored here.

    Raises `ValueError` with the code's error message, and `RuntimeError` if its process ends.
    """
    x, y = TABLES[name](return_X_y=True)
    halves = [train_test_split(x, y, test_size=0.5, random_state=seed, stratify=y) for seed in range(SPLITS)]
    answer = json.loads(fenced(lambda: _probabilities(code, [half[:3] for half in halves]), folder))
    if "error" in answer:
        raise ValueError(answer["error"])
    scores = []
    for (*_, labels), found in zip(halves, answer["probabilities"], strict=True):
        probabilities = np.asarray(found, dtype=float)
        several = probabilities.shape[1] > 2
        scores.append(roc_auc_score(labels, probabilities if several else probabilities[:, 1], multi_class="ovr"))
    return float(np.mean(scores))


def _probabilities(code: str, halves: list[tuple]) -> bytes:
    """The predictions of the code's models for the test halves; runs behind the fence."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a file that grows too large raises an error in the code
    try:
        names: dict = {}
        exec(compile(code, "build_model", "exec"), names)
        found = [names["build_model"](x, labels).predict_proba(test) for x, test, labels in halves]
        return json.dumps({"probabilities": [np.asarray(one).tolist() for one in found]}).encode()
    except BaseException as error:  # whatever the code raises, even an exit, is its result
        return json.dumps({"error": f"{type(error).__name__}: {error}"}).encode()
