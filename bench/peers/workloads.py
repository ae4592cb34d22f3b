"""What every peer is made to do: plain functions that import nothing of any peer.

    chain    `step` ten times, each taking what the last one returned
    fan      `step` a hundred times side by side, and a `join` of what they returned
    digits   `load`, `split`, `train`, `evaluate`: a random forest on the digits of scikit-learn

kfp takes the source of these functions away, so each imports what it needs itself, and the
annotations say which arguments are files. `loaded` to `scored` are the same four tasks for tools
that hand on values, here the names of files.
"""

import os
from pathlib import Path

try:
    from kfp.dsl import InputPath, OutputPath
except ImportError:

    def InputPath(kind):
        return str

    OutputPath = InputPath

LENGTH = 10
WIDTH = 100
TREES = 100
FOLDER = Path(os.environ.get("BENCH_FOLDER", "."))


def is_right(workload: str, result: float, first: int) -> bool:
    """Whether a workload that began with this number gave what it has to."""
    return {
        "chain": lambda: result == first + LENGTH,
        "fan": lambda: result == WIDTH * first + WIDTH * (WIDTH + 1) // 2,
        "digits": lambda: 0.9 < result < 1,
    }[workload]()


def step(number: int) -> int:
    return number + 1


def join(numbers: list) -> int:
    # `kfp.local` hands on a list of integers as floats.
    return int(sum(numbers))


def load(digits: OutputPath("Dataset"), seed: int):
    import numpy
    from sklearn.datasets import load_digits
    from sklearn.utils import shuffle

    images, labels = shuffle(*load_digits(return_X_y=True), random_state=seed)
    with open(digits, "wb") as file:
        numpy.savez_compressed(file, images=images, labels=labels)


def split(digits: InputPath("Dataset"), train: OutputPath("Dataset"), test: OutputPath("Dataset")):
    import numpy
    from sklearn.model_selection import train_test_split

    data = numpy.load(digits)
    parts = train_test_split(data["images"], data["labels"], test_size=0.25, random_state=7)
    for path, images, labels in ((train, parts[0], parts[2]), (test, parts[1], parts[3])):
        with open(path, "wb") as file:
            numpy.savez_compressed(file, images=images, labels=labels)


def train(train: InputPath("Dataset"), trees: int, model: OutputPath("Model")):
    import joblib
    import numpy
    from sklearn.ensemble import RandomForestClassifier

    data = numpy.load(train)
    forest = RandomForestClassifier(n_estimators=trees, random_state=7)
    joblib.dump(forest.fit(data["images"], data["labels"]), model)


def evaluate(model: InputPath("Model"), test: InputPath("Dataset"), metrics: OutputPath("Metrics")) -> float:
    import json

    import joblib
    import numpy
    from sklearn.metrics import accuracy_score, f1_score

    data = numpy.load(test)
    predicted = joblib.load(model).predict(data["images"])
    accuracy = float(accuracy_score(data["labels"], predicted))
    f1 = float(f1_score(data["labels"], predicted, average="macro"))
    with open(metrics, "w") as file:
        json.dump({"accuracy": accuracy, "f1_macro": f1}, file)
    return accuracy


def loaded() -> str:
    load(file("digits.npz"), seed=0)
    return file("digits.npz")


def parted(digits: str) -> list:
    parts = [file("train.npz"), file("test.npz")]
    split(digits, *parts)
    return parts


def trained(parts: list) -> str:
    train(parts[0], TREES, file("model.joblib"))
    return file("model.joblib")


def scored(model: str, parts: list) -> float:
    return evaluate(model, parts[1], file("metrics.json"))


def file(name: str) -> str:
    return str(FOLDER / name)
