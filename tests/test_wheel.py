"""The wheel holds everything that base needs, and nothing of torch."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Iterator
from email import message_from_string
from importlib.metadata import Distribution, distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def base_requirements(wheel: Path) -> list[str]:
    """What a wheel says that it needs, extras and all."""
    with ZipFile(wheel) as archive:
        [metadata] = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(archive.read(metadata).decode()).get_all("Requires-Dist", [])


def needed(requirements: list[str], extras: frozenset[str] = frozenset()) -> Iterator[Distribution]:
    """The installed distributions that an installer would bring along for requirements, and theirs, in turn."""
    seen = set()
    left = [(text, extras) for text in requirements]
    while left:
        text, asked = left.pop()
        requirement = Requirement(text)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *asked)):
            continue
        found = distribution(requirement.name)
        assert requirement.specifier.contains(found.version, prereleases=True), f"{text}: {found.version} is installed"
        inner = frozenset(requirement.extras)
        if (key := (canonicalize_name(requirement.name), inner)) not in seen:
            seen.add(key)
            left += [(text, inner) for text in found.requires or []]
            yield found


def link(found: Distribution, target: Path) -> None:
    """Put an installed distribution into another environment, without copying or compiling it once more."""
    for name in {path.parts[0] for path in found.files or [] if path.parts[0] not in ("..", "__pycache__")}:
        if not (target / name).exists():
            (target / name).symlink_to(Path(str(found.locate_file(name))))


@pytest.mark.slow
def test_the_wheel_installs_into_an_empty_environment_and_compares_from_another_directory(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path / "dist"]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    [wheel] = (tmp_path / "dist").glob("*.whl")

    environment = tmp_path / "environment"
    venv.create(environment)
    python = environment / "bin" / "python"
    [packages] = environment.glob("lib/python*/site-packages")
    for found in needed(base_requirements(wheel)):
        link(found, packages)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", python]
    subprocess.run([*pip, "install", "--no-index", "--no-compile", wheel], check=True)
    has_torch = subprocess.run([python, "-c", "import torch"], capture_output=True)
    assert has_torch.returncode != 0, "base pulls in torch"

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = ["--limit", "60", "--policies", "round-robin,l4", "--out", "out"]
    command = [environment / "bin" / "l4sim", "compare", *options]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=True)
    assert "60 requests of long-context-mix" in done.stdout
    assert (elsewhere / "out" / "plan.png").stat().st_size > 10_000
