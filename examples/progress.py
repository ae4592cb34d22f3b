"""Shows the tasks of a Kubeflow Pipelines run while it is at work.

On a terminal the list is drawn again in place; elsewhere one line is printed for each change of state.
"""

import os
import sys
import time

MARKS = {"SUCCEEDED": "✓", "FAILED": "✗", "RUNNING": "●", "SKIPPED": "-", "CANCELED": "✗"}
COLOURS = {"SUCCEEDED": "32", "FAILED": "31", "RUNNING": "36", "SKIPPED": "90", "CANCELED": "33"}


class Progress:
    """Give `show` a run whenever there is a new one; use it in a `with`."""

    def __init__(self, out=sys.stdout):
        self.out = out
        self.is_terminal = out.isatty() and os.environ.get("TERM") != "dumb"
        self.has_colour = self.is_terminal and not os.environ.get("NO_COLOR")
        self.started = time.monotonic()
        self.drawn = 0
        self.seen: dict[str, str] = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.out.flush()

    def show(self, run) -> None:
        rows = list(tree((run.run_details and run.run_details.task_details) or []))
        if self.is_terminal:
            self._draw(run, rows)
        else:
            self._print_changes(run, rows)
        self.out.flush()

    def _draw(self, run, rows) -> None:
        if self.drawn:
            self.out.write(f"\x1b[{self.drawn}A")
        lines = [f"run {run.run_id}: {self._colour(run.state)}  {time.monotonic() - self.started:.0f} s"]
        lines += [
            f"  {'  ' * depth}{MARKS.get(task.state, '·')} {task.display_name:<32} {self._colour(task.state)}"
            f"{took(task)}"
            for depth, task in rows
        ]
        # Lines that were there before and are not now, so that nothing old is left standing.
        lines += [""] * (self.drawn - len(lines))
        self.out.write("".join(f"\x1b[2K{line}\n" for line in lines))
        self.drawn = len(lines)

    def _print_changes(self, run, rows) -> None:
        for key, name, state in [("", "run", run.state)] + [
            (task.task_id, task.display_name, task.state) for _, task in rows
        ]:
            if state and self.seen.get(key) != state:
                self.seen[key] = state
                self.out.write(f"{time.monotonic() - self.started:7.1f} s  {name:<32} {state}\n")

    def _colour(self, state: str | None) -> str:
        state = state or "PENDING"
        if not self.has_colour or state not in COLOURS:
            return state
        return f"\x1b[{COLOURS[state]}m{state}\x1b[0m"


def tree(tasks):
    """(depth, task) in order of creation, children below their parent; the run's own root left out."""
    by_parent: dict[str | None, list] = {}
    known = {task.task_id for task in tasks}
    for task in sorted(tasks, key=lambda task: (str(task.create_time), task.display_name or "")):
        parent = task.parent_task_id if task.parent_task_id in known else None
        by_parent.setdefault(parent, []).append(task)
    tops = by_parent.get(None, [])
    if len(tops) == 1 and tops[0].task_id in by_parent:
        tops = by_parent[tops[0].task_id]

    def walk(tasks, depth):
        for task in tasks:
            yield depth, task
            yield from walk(by_parent.get(task.task_id, []), depth + 1)

    return walk(tops, 0)


def took(task) -> str:
    """How long an ended task was at work, e.g. `  1.2 s`."""
    if not task.start_time or not task.end_time or task.end_time < task.start_time:
        return ""
    return f"  {(task.end_time - task.start_time).total_seconds():.1f} s"
