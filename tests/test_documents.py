"""The documents are true: their commands run, their links lead somewhere, the options they name exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from l4sim.cli import cli, main

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    [ROOT / "README.md", ROOT / "profiles" / "README.md", ROOT / "traces" / "README.md", *(ROOT / "docs").glob("*.md")]
)
# What the commands read; they run in a copy, as some of them write.
NEEDED = ("traces", "profiles", "benchmarks")

_BLOCK = re.compile(r"^(?:<!-- not run: (?P<reason>.+?) -->\n+)?```sh\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?://|mailto:|#)(?P<target>[^)#\s]+)")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_INLINE_COMMAND = re.compile(r"`(l4sim [^`]+)`")


class Block(NamedTuple):
    """A block of shell commands in a document."""

    place: str
    """Document and line."""
    commands: list[list[str]]
    not_run: str | None
    """Why it is not run, if the document says that it is not."""


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def blocks_in(text: str, name: str) -> Iterator[Block]:
    for found in _BLOCK.finditer(text):
        lines = found["text"].replace("\\\n", " ").splitlines()
        commands = [words for line in lines if (words := shlex.split(line, comments=True))]
        line_number = text.count("\n", 0, found.start()) + 1
        yield Block(f"{name}:{line_number}", commands, found["reason"])


BLOCKS = [block for path in DOCUMENTS for block in blocks_in(path.read_text(encoding="utf-8"), name_of(path))]


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
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets)


def test_a_block_is_read_with_its_place_its_commands_and_why_it_is_not_run() -> None:
    text = "Text.\n\n<!-- not run: minutes -->\n```sh\nl4sim plan \\\n  --json  # the plan\n# nothing\n```\n"
    assert list(blocks_in(text, "a.md")) == [Block("a.md:3", [["l4sim", "plan", "--json"]], "minutes")]


@pytest.mark.slow
@pytest.mark.parametrize("block", [pytest.param(block, id=block.place) for block in BLOCKS])
def test_every_command_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.not_run:
        pytest.skip(block.not_run)
    for folder in NEEDED:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    for words in block.commands:
        run(words)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_to_a_file(document: Path) -> None:
    targets = [found["target"] for found in _LINK.finditer(document.read_text(encoding="utf-8"))]
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_option_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert set(_OPTION.findall(text)) - options_anywhere(cli) == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_command_has_the_options_given_to_it(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    written = [shlex.split(command) for command in _INLINE_COMMAND.findall(text)]
    written += [words for block in blocks_in(text, "") for words in block.commands]
    for words in written:
        if words[0] == "l4sim":
            command, left = command_of(words[1:])
            unknown = {word.partition("=")[0] for word in left if _OPTION.fullmatch(word.partition("=")[0])}
            assert unknown <= options_of(command), shlex.join(words)
