"""CPU time and memory of `make bench` here and in another tree, by turns.

    git worktree add ../before f70f355
    python -m benchmarks.pairs [--pairs 15] ../before [-- benchmarks/test_replay.py -k azure]

Each tree runs its own benchmarks, in a process of its own: those that both have by one name. Turn after turn the one
and the other runs a benchmark once, so that a machine that others use too is as slow for both. What is told is CPU time
(user and system, child processes included): the median in either tree, and the median change of a pair with its 95 %
interval (of the median's sign test, whatever the distribution), and the same of peak memory without an interval. A
benchmark that is not wanted or takes too long is left out as with pytest, after ``--``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

HERE = Path(__file__).resolve().parents[2]
Turn = tuple[float, float]
"""Seconds of CPU, peak memory in MiB."""


class Tree:
    """A tree's benchmarks, waiting for their turns."""

    def __init__(self, path: Path, listener: Listener, log: Path, wanted: list[str]) -> None:
        # As a directory of its own on the path the plugin is found by its file, not in the tree's package of that name.
        paths = [str(path), str(Path(__file__).parent)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PAIRS_TREE": str(path)}
        environment["PAIRS_ADDRESS"] = str(listener.address)
        options = ["-n", "0", "-p", "no:benchmark", "-p", "no:cacheprovider", "-p", "turns"]
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *options, *(wanted or ["benchmarks"])],
                cwd=path,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.connection: Connection[Any, Any] = listener.accept()
        assert self.connection.recv() == str(path)

    def ready(self, node: str) -> bool:
        """Whether a benchmark waits for its turn; False if its test has ended without one, skipped for example."""
        return self._next() == ("ready", node)

    def run(self) -> Turn | None:
        """Its turn; None if it has failed."""
        self.connection.send("go")
        word, value = self._next()
        return value if word == "ran" else None

    def end(self, node: str) -> None:
        """No turn follows for this benchmark."""
        self.connection.send("enough")
        assert self._next() == ("ended", node)

    def _next(self) -> tuple[str, Any]:
        try:
            received: tuple[str, Any] = self.connection.recv()
        except EOFError:
            sys.exit(self._log.read_text())
        return received


def median_interval(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The 95 % interval of the median by the sign test: two of the values; the extremes where there are too few."""
    ordered = np.sort(values)
    at = max(int(binom.ppf(0.025, len(ordered), 0.5)) - 1, 0)
    return float(ordered[at]), float(ordered[-1 - at])


def told(node: str, pairs: list[tuple[Turn, Turn]]) -> str:
    """A benchmark's row."""
    turns = np.array(pairs)
    before_s, here_s = np.median(turns[:, :, 0], axis=0)
    changes_pct = 100 * (turns[:, 1, 0] / turns[:, 0, 0] - 1)
    lower, upper = median_interval(changes_pct)
    before_mib, here_mib = turns[:, :, 1].max(axis=0)
    return (
        f"{node.removeprefix('benchmarks/test_'):78s} {1e3 * before_s:11.4f} {1e3 * here_s:11.4f} "
        f"{np.median(changes_pct):+7.1f} {lower:+7.1f} {upper:+7.1f} "
        f"{before_mib:8.0f} {here_mib:6.0f} {100 * (here_mib / before_mib - 1):+6.1f}"
    )


def compare(node: str, before: Tree, here: Tree, count: int) -> str:
    """Run a benchmark by turns, the first of which are no pair but warm up."""
    trees = before, here
    ready = [tree.ready(node) for tree in trees]
    pairs: list[tuple[Turn, Turn]] = []
    going = all(ready)
    while going and len(pairs) <= count:
        # Who begins alternates: a machine that gets slower or faster favours neither.
        order = (0, 1) if len(pairs) % 2 else (1, 0)
        turns = {number: trees[number].run() for number in order}
        if (one := turns[0]) is None or (other := turns[1]) is None:
            sys.exit(f"{node} has failed: run it in its tree")
        pairs.append((one, other))
    for tree, was_ready in zip(trees, ready, strict=True):
        if was_ready:
            tree.end(node)
    return told(node, pairs[1:]) if going else f"{node}: skipped"


def main() -> None:
    """Print a row per benchmark that both trees have."""
    parser = argparse.ArgumentParser(prog="benchmarks.pairs", description=__doc__.splitlines()[0])
    parser.add_argument("tree", type=Path, help="the tree to compare with")
    parser.add_argument("--pairs", type=int, default=15, help="how often each tree runs each benchmark (default 15)")
    parser.add_argument(
        "pytest", nargs=argparse.REMAINDER, metavar="-- ...", help="which, as for pytest (default: all)"
    )
    options = parser.parse_args()
    wanted = [word for word in options.pytest if word != "--"]
    with tempfile.TemporaryDirectory() as folder, Listener(os.path.join(folder, "turns")) as listener:
        before = Tree(options.tree.resolve(), listener, Path(folder, "before.log"), wanted)
        here = Tree(HERE, listener, Path(folder, "here.log"), wanted)
        offered = [tree.connection.recv() for tree in (before, here)]
        common = [node for node in offered[0] if node in set(offered[1])]
        for tree in (before, here):
            tree.connection.send(common)
        print(f"{options.tree} and here, by turns, {options.pairs} pairs each; ms of CPU, MiB at the most")
        headings = ["ms before", "here", "%", "95 %", "", "MiB", "here", "%"]
        print(" " * 78, *(word.rjust(width) for word, width in zip(headings, (11, 11, 7, 7, 7, 8, 6, 6), strict=True)))
        for node in common:
            print(compare(node, before, here, options.pairs), flush=True)
        for tree in (before, here):
            tree.process.wait()
        for number in (0, 1):
            alone = [node for node in offered[number] if node not in set(offered[1 - number])]
            print(f"{len(alone)} benchmarks that {(options.tree, 'here')[number]} alone has")


if __name__ == "__main__":
    main()
