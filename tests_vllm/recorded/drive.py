"""Record vLLM's schedulers without a model: ``python drive.py FOLDER SEED CASES``, in vLLM's environment.

Random cases of all settings: short of KV blocks, and asynchronous, which a build for CPUs is not. One recording a case,
in folders below FOLDER.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from tests_vllm import real_scheduler
from tests_vllm.cases import SETTINGS, iteration_s, small_cases
from validate_gpu.vllm.scheduler import FOLDER, RecordingAsyncScheduler, RecordingScheduler


class _Stamped:
    """Requests come by the wall's clock, as a front end would stamp them."""

    def add_request(self, request: Any) -> None:
        """As vLLM's."""
        request.arrival_time = time.time()
        super().add_request(request)


class Asynchronous(_Stamped, RecordingAsyncScheduler):
    """vLLM's asynchronous scheduler."""


class Synchronous(_Stamped, RecordingScheduler):
    """vLLM's synchronous scheduler."""


if __name__ == "__main__":
    out, seed, cases = sys.argv[1:]
    real_scheduler.AsyncScheduler, real_scheduler.Scheduler = Asynchronous, Synchronous
    for setting in SETTINGS:
        for number, case in enumerate(small_cases(setting, seed, int(cases))):
            os.environ[FOLDER] = str(Path(out) / f"{'-'.join(setting)}-{number}")
            engine = real_scheduler.RealEngine(case.config, iteration_s)
            engine.run(case.asks)
            engine.scheduler.shutdown()
