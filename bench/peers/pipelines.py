"""The workloads as Kubeflow pipelines, for Coracle and for `kfp.local`."""

from pathlib import Path

import workloads
from kfp import dsl

PACKAGES = [line for line in Path(__file__).with_name("digits.txt").read_text().split("\n") if "==" in line]


def pipelines(is_installing: bool) -> dict:
    """`is_installing`: whether tasks see to their packages, as components usually do, or find them there."""

    def component(function, packages=()):
        return dsl.component(
            function,
            base_image="python:3.11",
            install_kfp_package=is_installing,
            packages_to_install=list(packages) if is_installing else None,
        )

    step, join = component(workloads.step), component(workloads.join)
    load, split, train, evaluate = (
        component(function, PACKAGES)
        for function in (workloads.load, workloads.split, workloads.train, workloads.evaluate)
    )

    @dsl.pipeline
    def chain(first: int = 0) -> int:
        last = step(number=first)
        for _ in range(workloads.LENGTH - 1):
            last = step(number=last.output)
        return last.output

    @dsl.pipeline
    def fan(numbers: list[int] = list(range(workloads.WIDTH))) -> int:  # noqa: B006
        with dsl.ParallelFor(numbers) as number:
            one = step(number=number)
        return join(numbers=dsl.Collected(one.output)).output

    @dsl.pipeline
    def digits(seed: int = 0) -> float:
        loaded = load(seed=seed)
        parts = split(digits=loaded.outputs["digits"])
        model = train(train=parts.outputs["train"], trees=workloads.TREES)
        return evaluate(model=model.output, test=parts.outputs["test"]).outputs["Output"]

    return {"chain": chain, "fan": fan, "digits": digits}
