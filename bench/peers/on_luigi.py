"""Luigi with its scheduler in the same process. The mode is the number of workers."""

import json

import clock
import luigi
import workloads


class Number(luigi.Task):
    """A task whose output is a file with one number."""

    def output(self):
        return luigi.LocalTarget(f"{self.task_id}.json")

    def write(self, number) -> None:
        with self.output().open("w") as file:
            json.dump(number, file)


def read(target) -> float:
    with target.open() as file:
        return json.load(file)


class Chain(Number):
    index = luigi.IntParameter(default=workloads.LENGTH)

    def requires(self):
        return Chain(self.index - 1) if self.index > 1 else []

    def run(self):
        self.write(workloads.step(read(self.input()) if self.index > 1 else 0))


class Step(Number):
    number = luigi.IntParameter()

    def run(self):
        self.write(workloads.step(self.number))


class Fan(Number):
    def requires(self):
        return [Step(number) for number in range(workloads.WIDTH)]

    def run(self):
        self.write(workloads.join([read(target) for target in self.input()]))


class Load(luigi.Task):
    def output(self):
        return luigi.LocalTarget(workloads.file("digits.npz"))

    def run(self):
        workloads.load(self.output().path, seed=0)


class Split(luigi.Task):
    def requires(self):
        return Load()

    def output(self):
        return [luigi.LocalTarget(workloads.file(name)) for name in ("train.npz", "test.npz")]

    def run(self):
        workloads.split(self.input().path, *(target.path for target in self.output()))


class Train(luigi.Task):
    def requires(self):
        return Split()

    def output(self):
        return luigi.LocalTarget(workloads.file("model.joblib"))

    def run(self):
        workloads.train(self.input()[0].path, workloads.TREES, self.output().path)


class Digits(Number):
    def requires(self):
        return Train(), Split()

    def run(self):
        model, (_, test) = self.input()
        self.write(workloads.evaluate(model.path, test.path, workloads.file("metrics.json")))


def run(last: Number) -> float:
    if not luigi.build([last], workers=int(clock.MODE), local_scheduler=True, log_level="WARNING"):
        raise SystemExit("Luigi says that not all tasks were done")
    return read(last.output())


if __name__ == "__main__":
    clock.main(chain=lambda: run(Chain()), fan=lambda: run(Fan()), digits=lambda: run(Digits()))
