"""Live runs on disk: enough to hold them against the simulator again, without the device.

The folder has ``live.json`` (options and device), ``trace.parquet`` and ``profile/``, what the runs were set up with;
then a folder per run, ``POLICY-N``: its tables, ``batches.parquet``, ``copies.parquet``, ``decisions.jsonl.gz`` and, if
there was a plan, ``partition.json``: everything of `validate_gpu.live_run.LiveRun`.
"""
