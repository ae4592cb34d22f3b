"""Recognise handwritten digits: train two models, compare them, keep the better one if it is good enough.

    load ── split ─┬─ logistic regression ── evaluate ─┬─ choose ── (accuracy ≥ threshold?) ── register
                   └─ random forest ──────── evaluate ─┘

The data are the 1 797 images of 8 × 8 pixels that come with scikit-learn, so nothing is downloaded
but Python packages. This is an ordinary Kubeflow pipeline: it imports `kfp` and nothing of Coracle.

    python pipeline.py          # writes digits.yaml beside this file
"""

from pathlib import Path
from typing import NamedTuple

from kfp import compiler, dsl
from kfp.dsl import ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output

PACKAGES = ["joblib==1.5.2", "numpy==2.2.6", "scikit-learn==1.7.2", "scipy==1.15.3"]


@dsl.component(base_image="python:3.11", packages_to_install=PACKAGES)
def load_digits(digits: Output[Dataset]):
    """Write all images and their labels to one file."""
    import numpy
    from sklearn import datasets

    bundle = datasets.load_digits()
    with open(digits.path, "wb") as file:
        numpy.savez_compressed(file, images=bundle.data, labels=bundle.target)
    digits.metadata["images"] = len(bundle.target)
    digits.metadata["classes"] = len(bundle.target_names)


@dsl.component(base_image="python:3.11", packages_to_install=PACKAGES)
def split_digits(
    digits: Input[Dataset],
    test_size: float,
    seed: int,
    train: Output[Dataset],
    test: Output[Dataset],
):
    """Put a part of the images aside, with the same share of each digit."""
    import numpy
    from sklearn.model_selection import train_test_split

    data = numpy.load(digits.path)
    parts = train_test_split(
        data["images"], data["labels"], test_size=test_size, random_state=seed, stratify=data["labels"]
    )
    for artifact, images, labels in ((train, parts[0], parts[2]), (test, parts[1], parts[3])):
        with open(artifact.path, "wb") as file:
            numpy.savez_compressed(file, images=images, labels=labels)
        artifact.metadata["images"] = len(labels)
    print(f"{len(parts[2])} images to train on, {len(parts[3])} to test on")


@dsl.component(base_image="python:3.11", packages_to_install=PACKAGES)
def train_logistic_regression(train: Input[Dataset], regularization: float, seed: int, model: Output[Model]):
    """Fit one linear classifier per digit."""
    import joblib
    import numpy
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    data = numpy.load(train.path)
    classifier = make_pipeline(
        MinMaxScaler(), LogisticRegression(C=regularization, max_iter=500, random_state=seed)
    )
    classifier.fit(data["images"], data["labels"])
    joblib.dump(classifier, model.path)
    model.metadata["family"] = "logistic regression"
    model.metadata["framework"] = "scikit-learn"


@dsl.component(base_image="python:3.11", packages_to_install=PACKAGES)
def train_random_forest(train: Input[Dataset], trees: int, seed: int, model: Output[Model]):
    """Fit a forest of decision trees."""
    import joblib
    import numpy
    from sklearn.ensemble import RandomForestClassifier

    data = numpy.load(train.path)
    classifier = RandomForestClassifier(n_estimators=trees, random_state=seed)
    classifier.fit(data["images"], data["labels"])
    joblib.dump(classifier, model.path)
    model.metadata["family"] = "random forest"
    model.metadata["framework"] = "scikit-learn"


@dsl.component(base_image="python:3.11", packages_to_install=PACKAGES)
def evaluate(
    model: Input[Model],
    test: Input[Dataset],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
) -> float:
    """Measure a model on the images put aside, and return its accuracy."""
    import joblib
    import numpy
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

    data = numpy.load(test.path)
    predicted = joblib.load(model.path).predict(data["images"])
    accuracy = float(accuracy_score(data["labels"], predicted))
    metrics.log_metric("accuracy", accuracy)
    metrics.log_metric("f1_macro", float(f1_score(data["labels"], predicted, average="macro")))
    metrics.metadata["family"] = model.metadata["family"]
    confusion.log_confusion_matrix(
        [str(digit) for digit in range(10)], confusion_matrix(data["labels"], predicted).tolist()
    )
    print(f"{model.metadata['family']}: {accuracy:.4f} of {len(predicted)} images recognised")
    return accuracy


@dsl.component(base_image="python:3.11", packages_to_install=PACKAGES)
def choose_best(
    linear: Input[Model],
    linear_accuracy: float,
    forest: Input[Model],
    forest_accuracy: float,
    best: Output[Model],
) -> NamedTuple("Choice", [("family", str), ("accuracy", float)]):
    """Hand on the more accurate of two models."""
    import shutil
    from collections import namedtuple

    winner, accuracy = (
        (linear, linear_accuracy) if linear_accuracy >= forest_accuracy else (forest, forest_accuracy)
    )
    shutil.copyfile(winner.path, best.path)
    best.metadata.update(winner.metadata, accuracy=accuracy)
    print(f"{winner.metadata['family']} wins with {accuracy:.4f}")
    return namedtuple("Choice", ["family", "accuracy"])(winner.metadata["family"], accuracy)


@dsl.component(base_image="python:3.11", packages_to_install=PACKAGES)
def register(
    model: Input[Model],
    name: str,
    accuracy: float,
    threshold: float,
    registered: Output[Model],
    card: Output[Markdown],
):
    """Keep the model under its name, with a card that says what it is."""
    import hashlib
    import pathlib
    import shutil

    import joblib

    shutil.copyfile(model.path, registered.path)
    digest = hashlib.sha256(pathlib.Path(registered.path).read_bytes()).hexdigest()
    registered.metadata.update(model.metadata, name=name, sha256=digest)
    pathlib.Path(card.path).write_text(
        f"# {name}\n\n"
        f"Recognises handwritten digits in images of 8 × 8 pixels.\n\n"
        f"| | |\n| --- | --- |\n"
        f"| family | {model.metadata['family']} |\n"
        f"| accuracy | {accuracy:.4f} (registered from {threshold} up) |\n"
        f"| sha256 | `{digest}` |\n\n"
        f"```\n{joblib.load(registered.path)}\n```\n",
        encoding="utf-8",
    )
    print(f"registered {name}: {registered.uri}")


@dsl.pipeline(
    name="digits", description="Train two models on handwritten digits and register the better one."
)
def digits_pipeline(
    test_size: float = 0.25,
    seed: int = 7,
    regularization: float = 1.0,
    trees: int = 100,
    threshold: float = 0.95,
    model_name: str = "digits",
):
    loaded = load_digits()
    parts = split_digits(digits=loaded.outputs["digits"], test_size=test_size, seed=seed)

    linear = train_logistic_regression(train=parts.outputs["train"], regularization=regularization, seed=seed)
    linear_score = evaluate(model=linear.outputs["model"], test=parts.outputs["test"])
    linear_score.set_display_name("evaluate logistic regression")

    forest = train_random_forest(train=parts.outputs["train"], trees=trees, seed=seed)
    forest_score = evaluate(model=forest.outputs["model"], test=parts.outputs["test"])
    forest_score.set_display_name("evaluate random forest")

    choice = choose_best(
        linear=linear.outputs["model"],
        linear_accuracy=linear_score.outputs["Output"],
        forest=forest.outputs["model"],
        forest_accuracy=forest_score.outputs["Output"],
    )
    with dsl.If(choice.outputs["accuracy"] >= threshold, name="good enough"):
        register(
            model=choice.outputs["best"],
            name=model_name,
            accuracy=choice.outputs["accuracy"],
            threshold=threshold,
        )


if __name__ == "__main__":
    target = Path(__file__).with_name("digits.yaml")
    compiler.Compiler().compile(digits_pipeline, str(target))
    print(f"wrote {target}")
