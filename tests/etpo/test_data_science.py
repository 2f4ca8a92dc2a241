"""Code that a policy writes: scored, told its error, killed, and kept from network, processes and other folders."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trl_entropy.etpo.data_science import HEAD, DataScience, code_in
from trl_entropy.rewards import fence


DEADLINE = 5.0  # seconds
GOOD = """\
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.linear_model import LogisticRegression
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(x_train, y_train)
"""


@pytest.fixture(scope="module")
def made():
    environment = DataScience(deadline=DEADLINE, workers=2)
    yield environment
    environment.pool.close()


@pytest.fixture
def attempt(made):
    def step(*texts: str, table: str = "wine") -> list[tuple]:
        rooms = [DataScience(deadline=DEADLINE, workers=2) for _ in texts]
        for room in rooms:
            room.reset({"prompt": table})
        return DataScience.step_together(rooms, texts)

    return step


@pytest.mark.parametrize("table", ["wine", "breast_cancer"])
def test_reward_is_the_mean_roc_auc_of_five_halves(attempt, table):
    ((told, reward, done),) = attempt(GOOD, table=table)
    assert (told, done) == ("Done.", True)
    assert 0.98 < reward <= 1.0


def test_reward_by_hand(attempt):
    body = GOOD.replace("x_train, y_train)", "x_train[:60], y_train[:60])").replace("sion()", "sion(C=1e-4)")
    x, y = load_wine(return_X_y=True)
    scores = []
    for seed in range(5):
        a, b, ya, yb = train_test_split(x, y, test_size=0.5, random_state=seed, stratify=y)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-4)).fit(a[:60], ya[:60])
        scores.append(roc_auc_score(yb, model.predict_proba(b), multi_class="ovr"))
    assert attempt(body)[0][1] == pytest.approx(np.mean(scores), abs=1e-12)


FAULTS = {
    "return nothing_here": "NameError: name 'nothing_here' is not defined",
    "return 1 +": "SyntaxError: invalid syntax (build_model, line 2)",
    "raise SystemExit(0)": "SystemExit: 0",
    "import os; os._exit(0)": "Expecting value: line 1 column 1 (char 0)",
    "import os; os._exit(3)": "the process ended with status 3",
    "x = bytearray(8 * 2**30)": "MemoryError:",
    "import socket; socket.create_connection(('127.0.0.1', 9))": "PermissionError: [Errno 1] Operation not permitted",
    "import os; os.fork()": "PermissionError: [Errno 1] Operation not permitted",
    "import subprocess; subprocess.run(['true'])": "PermissionError: [Errno 1] Operation not permitted",
    "import os; os.kill(os.getppid(), 9)": "PermissionError: [Errno 1] Operation not permitted",
    "open('large', 'wb').write(bytes(2**27))": "OSError: [Errno 27] File too large",
    "import os; raise ValueError(sorted(os.environ), os.listdir())": "ValueError: (['HOME', 'PATH', 'TMPDIR'], [])",
    # the three streams, the channel for its answer, and what lists them
    "import os; raise ValueError(len(os.listdir('/proc/self/fd')))": "ValueError: 5",
}


def test_an_error_costs_one_and_is_told(attempt):
    texts = [f"    {fault}" for fault in FAULTS]
    for (told, reward, done), message in zip(attempt(*texts), FAULTS.values(), strict=True):
        assert (reward, done) == (-1.0, False)
        assert f"# {message}" in told
        assert told.endswith(HEAD)


def test_threads_run_and_its_folder_is_its_own_and_goes(attempt):
    body = "    import os\n    open('mine', 'w').write('x')\n    raise ValueError(os.getcwd(), os.listdir())"
    one, two = (told.partition("ValueError: ('")[2].partition("'")[0] for told, *_ in attempt(body, body))
    assert one != two
    assert not Path(one).exists()
    threaded = "    from threading import Thread\n    t = Thread(target=print)\n    t.start(); t.join()\n" + GOOD
    assert attempt(threaded)[0][1] > 0.9


def test_one_that_does_not_end_is_killed_and_the_others_are_scored(attempt):
    start = time.monotonic()
    (endless, good) = attempt("    while True: pass", GOOD)
    assert endless[1:] == (-1.0, False)
    assert "It ended by timeout" in endless[0]
    assert good[1] > 0.9
    assert time.monotonic() - start < 4 * DEADLINE  # two tries


def test_five_attempts(made):
    made.reset({"prompt": "iris"})
    assert [made.step("    return x")[2] for _ in range(5)] == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("    return 1\n\nprint(2)", HEAD + "    return 1\n"),
        ("\timport os\n\treturn 1", HEAD + "    import os\n    return 1"),
        (
            "```python\nimport os\ndef build_model(x_train, y_train):\n    return 1\n```",
            f"import os\n{HEAD}    return 1",
        ),
        ("return 1", HEAD),
    ],
)
def test_code_in_a_text_by_hand(text, code):
    assert code_in(text) == code


def test_without_the_filter_nothing_runs(monkeypatch):
    monkeypatch.setattr(fence.platform, "system", lambda: "Darwin")
    with pytest.raises(RuntimeError, match="needs Linux on x86_64 or aarch64, but this is Darwin on"):
        fence.check_fence()


def test_prompts_name_the_table(made):
    assert made.dataset()["prompt"] == ["breast_cancer", "digits", "iris", "wine"]
    assert made.reset({"prompt": "wine"}).startswith("# Table wine: x_train has the shape (89, 13), y_train one of 3 ")
    assert os.getpid() != made.pool.server
