"""Executors by name, on which a sweep's points run. Any other `concurrent.futures.Executor` can be given as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from l4sim.errors import InputError

ACCEPTED = "dask=ADDRESS, or submitit[=PARAMETER=VALUE,...]"
# Threads that only wait: finished jobs are noticed in the order of their submission.
_WAITING_THREADS = 32


@contextmanager
def executor_by_name(name: str, folder: Path) -> Iterator[Executor]:
    """A context with the executor that ``name`` stands for, which is shut down at its end.

    ``dask=ADDRESS`` is a dask.distributed scheduler; ``submitit`` submits every point as a Slurm job (on a machine
    without Slurm, as a local process), with submitit's own parameters after ``=``, such as
    ``submitit=slurm_partition=cpu,timeout_min=60``, and its logs in ``folder``.

    Raises:
        InputError: no such executor, its package is missing, or nobody answers at the address.
    """
    kind, _, rest = name.partition("=")
    if kind == "dask" and rest:
        with _dask(rest) as executor:
            yield executor
    elif kind == "submitit":
        with _Submitit(folder / "submitit", _parameters(rest)) as executor:
            yield executor
    else:
        raise InputError(f"no executor '{name}': accepted are {ACCEPTED}")


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise InputError("dask.distributed is not installed: pip install 'l4sim[dask]'") from None
    try:
        client = Client(address, timeout="10s")  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(f"no dask scheduler answers at {address} ({error})") from None
    with client, client.get_executor(pure=False) as executor:  # type: ignore[no-untyped-call]
        yield executor


class _Submitit(Executor):
    """submitit's jobs behind the interface of `concurrent.futures`."""

    def __init__(self, folder: Path, parameters: dict[str, Any]) -> None:
        try:
            from submitit import AutoExecutor
        except ImportError:
            raise InputError("submitit is not installed: pip install 'l4sim[slurm]'") from None
        self._jobs = AutoExecutor(folder)
        try:
            self._jobs.update_parameters(**parameters)
        except (NameError, TypeError, ValueError) as error:
            raise InputError(f"submitit: {error}") from None
        self._threads = ThreadPoolExecutor(_WAITING_THREADS)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Submit a job now; its result is waited for in a thread."""
        return self._threads.submit(self._jobs.submit(fn, *args, **kwargs).result)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop waiting; jobs that Slurm has already started go on."""
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)


def _parameters(text: str) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        name, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"submitit: {item!r} is no PARAMETER=VALUE")
        parameters[name] = int(value) if value.isdecimal() else value
    return parameters
