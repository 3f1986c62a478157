"""The documents are true: their commands run, their links lead somewhere, the options they name exist."""

from __future__ import annotations

import gzip
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from l4sim.cli import cli, main
from l4sim.cost.profile import list_profiles, load_profile
from l4sim.experiment import Options, resolve
from l4sim.sweeps.grid import expand, grid_axes, read_grid

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    [ROOT / "README.md", ROOT / "profiles" / "README.md", ROOT / "traces" / "README.md", *(ROOT / "docs").glob("*.md")]
)
# What the commands read; they run in a copy, as some of them write. Of traces it has the first requests only: that the
# commands run is shown by these as well.
NEEDED = ("profiles", "benchmarks", "validate_gpu/reports", "tests/recordings/samples")
KEPT_REQUESTS = 80
OF_OTHERS = {
    "--scheduler-cls",
    "--save-result",
    "--save-detailed",
    "--streaming",
    "--max-concurrency",
    "--chunked-prefill-size",
}
"""Options of other programs that the documents name: vLLM's, SGLang's and AIPerf's."""
OF_BENCHMARKS = {"--cases", "--seeds"}
"""Options of `python -m benchmarks.rivals` that the documents name."""

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+?) -->\n+)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\]\((?!https?://|mailto:|#)(?P<target>[^)#\s]+)")
_FILE = re.compile(r"`((?:l4sim|validate_gpu|tests|benchmarks)/[\w./-]+)`")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_INLINE_COMMAND = re.compile(r"`(l4sim [^`]+)`")


class Block(NamedTuple):
    """A block of code in a document."""

    place: str
    """Document and line."""
    language: str
    text: str
    not_run: str | None
    """Why it is not run, if the document says that it is not."""

    @property
    def file(self) -> str | None:
        """The file that it is to blocks below it: a spec of a sweep, or a module whose first line names it."""
        named = re.match(r"# (\w+\.py)\n", self.text)
        return "spec.yaml" if self.language == "yaml" else named[1] if named else None

    @property
    def commands(self) -> list[list[str]]:
        """The words of its commands, if it is a shell's."""
        lines = self.text.replace("\\\n", " ").splitlines() if self.language == "sh" else []
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def blocks_in(text: str, name: str) -> Iterator[Block]:
    for found in _BLOCK.finditer(text):
        line_number = text.count("\n", 0, found.start()) + 1
        yield Block(f"{name}:{line_number}", found["language"], found["text"], found["reason"])


BLOCKS = [block for path in DOCUMENTS for block in blocks_in(path.read_text(encoding="utf-8"), name_of(path))]


def before(first: Block, second: Block) -> bool:
    """Whether a block stands further up in the same document."""
    (name, line), (other_name, other_line) = first.place.split(":"), second.place.split(":")
    return name == other_name and int(line) < int(other_line)


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words after ``l4sim`` name, and the words left."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"no command '{words[0]}' in '{command.name}'"
        command, words = found, words[1:]
    return command, words


def options_of(command: click.Command) -> set[str]:
    options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    return options | {"--help", "--version"}


def options_anywhere(command: click.Command) -> set[str]:
    options = options_of(command)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            options |= options_anywhere(inner)
    return options


def name_of_yaml(block: Block) -> str:
    """The file that a document's YAML is: a fleet's, or the spec of a sweep."""
    return "fleet.yaml" if re.search("^groups:", block.text, re.MULTILINE) else "spec.yaml"


def copy_of_bundled(target: Path) -> None:
    """What the commands read, in ``target``."""
    for folder in NEEDED:
        shutil.copytree(ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (target / "traces").mkdir()
    for trace in (ROOT / "traces").glob("*.jsonl.gz"):
        with gzip.open(trace, "rt") as whole, gzip.open(target / "traces" / trace.name, "wt") as part:
            part.writelines(islice(whole, KEPT_REQUESTS))


def run(words: list[str]) -> None:
    program, *arguments = words
    if program == "l4sim":
        with pytest.raises(SystemExit) as ending:
            main(arguments)
        assert not ending.value.code, f"{shlex.join(words)} ended with {ending.value.code}"
    elif program == "python":
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    else:
        # Its commands are these very tests, or take minutes: that it has them is enough here.
        assert program == "make", f"{shlex.join(words)}: only l4sim, python and make are known here"
        targets = re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets)


def test_a_block_is_read_with_its_place_its_commands_and_why_it_is_not_run() -> None:
    text = "Text.\n\n<!-- not run: minutes -->\n```sh\nl4sim plan \\\n  --json  # the plan\n# nothing\n```\n"
    [block] = blocks_in(text, "a.md")
    assert (block.place, block.not_run) == ("a.md:3", "minutes")
    assert block.commands == [["l4sim", "plan", "--json"]]


@pytest.mark.slow
@pytest.mark.parametrize("block", [pytest.param(block, id=block.place) for block in BLOCKS])
def test_every_block_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.not_run:
        pytest.skip(block.not_run)
    copy_of_bundled(tmp_path)
    for other in (other for other in BLOCKS if before(other, block)):
        if other.file is not None:
            (tmp_path / other.file).write_text(other.text)
        elif other.language == "yaml":
            (tmp_path / name_of_yaml(other)).write_text(other.text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("l4sim.bundled._PACKAGE", tmp_path / "l4sim")
    # A module named on a command line is looked for in the working directory, from then on.
    monkeypatch.setattr(sys, "path", list(sys.path))
    if block.language == "sh":
        for words in block.commands:
            run(words)
    elif block.language == "python":
        run(["python", "-c", block.text])
    elif block.language == "toml":
        tomllib.loads(block.text)
    else:
        assert block.language == "yaml"
        path = tmp_path / name_of_yaml(block)
        path.write_text(block.text)
        if path.name == "fleet.yaml":
            assert resolve(Options(fleet=path)).groups
        else:
            assert list(expand(grid_axes(read_grid(path), block.place)))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_to_a_file(document: Path) -> None:
    targets = [found["target"] for found in _LINK.finditer(document.read_text(encoding="utf-8"))]
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_file_of_the_project_that_is_named_exists(document: Path) -> None:
    named = _FILE.findall(document.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_option_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert set(_OPTION.findall(text)) - options_anywhere(cli) - OF_OTHERS - OF_BENCHMARKS == set()


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_command_has_the_options_given_to_it(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    written = [shlex.split(command) for command in _INLINE_COMMAND.findall(text)]
    written += [words for block in blocks_in(text, "") for words in block.commands]
    for words in written:
        if words[0] == "l4sim":
            # Behind a bare -- stands another program's command.
            own = words[1 : words.index("--")] if "--" in words else words[1:]
            command, left = command_of(own)
            unknown = {word.partition("=")[0] for word in left if _OPTION.fullmatch(word.partition("=")[0])}
            assert unknown <= options_of(command), shlex.join(words)


def test_the_errors_in_validation_are_those_that_the_profiles_hold() -> None:
    text = (ROOT / "docs" / "validation.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `([\w.-]+)` \| `([^`]+)` \| ([\d,]+) \| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) % \|$", text, re.M
    )
    # Of profiles with tables of operators `l4sim profile show` prints as many rows as there are tables.
    measured = [load_profile(name) for name in list_profiles()]
    assert {name for name, *_ in rows} == {
        profile.name for profile in measured if profile.basis == "measured" and not profile.tables
    }
    for name, operator, *figures in rows:
        held = errors_of(name)[operator]
        expected = [f"{held['points']:,}", *(f"{held[f'{kind}_pct']:.1f}" for kind in ("mape", "p90", "worst"))]
        assert figures == expected, f"{name}, {operator}"
    skews = re.findall(r"^\| `([^`]+)`: [^|]+ \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.M)
    assert len(skews) == 3
    for operator, *figures in skews:
        held = errors_of("rtx-pro-6000")[operator]
        expected = [f"{held['points']:,}", *(f"{held[f'{model}_pct']:.2f}" for model in ("tile", "mean", "alpha"))]
        assert figures == expected, operator


def errors_of(profile: str) -> dict[str, dict[str, float]]:
    """Errors on held-out points by operator, named as `l4sim profile show` names them."""
    loaded = load_profile(profile)
    kernels = {
        f"attention, {kernel}, {kind}": errors
        for kernel, fit in loaded.kernels.items()
        for kind, errors in fit.errors.items()
    }
    return {**loaded.errors, **kernels}
