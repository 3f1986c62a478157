"""Constants that no datasheet tells, as they were fitted to recorded runs: ``profiles/hosts.json``.

`l4sim validate all FOLDER --record` writes them, after it has tested each on runs that it was not fitted to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from l4sim.bundled import folder
from l4sim.errors import InputError
from l4sim.json_files import NonNegative, Text, read_json

HOSTS_FILE = "hosts.json"

GRAPH_TIMED = "graph-timed"
"""Profiles whose kernels were timed back to back in CUDA graphs, as an engine runs them."""
EAGER_TIMED = "eager-timed"
"""Profiles whose operators were timed one by one, in an engine without CUDA graphs."""


@dataclass(frozen=True, slots=True)
class FittedHost:
    """What an iteration takes besides its kernels, as they were timed."""

    iteration_s: NonNegative
    """In every iteration: what asynchronous scheduling does not hide, sampling, gaps between launches."""
    source: Text


@dataclass(frozen=True, slots=True)
class FittedFrontEnd:
    """What an API server takes."""

    request_s: NonNegative
    prompt_token_s: NonNegative
    streamed_token_s: NonNegative
    source: Text


@dataclass(frozen=True, slots=True)
class Fitted:
    """All of them."""

    front_end: FittedFrontEnd
    hosts: Mapping[str, FittedHost] = field(default_factory=dict)
    """By how a profile's kernels were timed."""

    def host(self, kind: str) -> FittedHost:
        """One kind of host's.

        Raises:
            InputError: nothing was fitted for it.
        """
        if kind not in self.hosts:
            raise InputError(f"{HOSTS_FILE}: no host '{kind}', accepted are {', '.join(self.hosts)}")
        return self.hosts[kind]


@lru_cache(maxsize=1)
def load_fitted() -> Fitted:
    """The bundled constants."""
    return read_json(folder("profiles") / HOSTS_FILE, Fitted)
