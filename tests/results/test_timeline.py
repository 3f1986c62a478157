"""The timeline that Perfetto opens."""

from __future__ import annotations

import json

import pytest

from l4sim.errors import InputError
from l4sim.policies.plan import Stage
from l4sim.results.timeline import INSTANCES, MIGRATIONS, write_timeline


def events(path, phase):
    return [event for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == phase]


@pytest.fixture
def run(make_tiny):
    """Instance 0 runs for 0..1 s and 2..3 s, instance 1 for 1.5..2.5 s; one request moves from 0 to 1."""
    return make_tiny(
        iterations=[
            {"instance": 0, "start_s": 0.0, "end_s": 1.0, "decode_requests": 3, "kv_blocks_used": 7},
            {"instance": 0, "start_s": 2.0, "end_s": 3.0},
            {"instance": 1, "start_s": 1.5, "end_s": 2.5, "prefill_requests": 1, "prefill_tokens": 512},
        ],
        migrations=[{"request_id": "r7", "start_s": 0.5, "end_s": 1.2, "pause_s": 0.02}],
        instances=2,
    )


def test_segments_are_slices_on_their_instances_track_in_microseconds(tmp_path, run):
    slices = [event for event in events(write_timeline(run, tmp_path / "t.json"), "X") if event["pid"] == INSTANCES]
    assert [(event["tid"], event["ts"], event["dur"]) for event in slices] == [
        (0, 0.0, 1e6),
        (0, 2e6, 1e6),
        (1, 1.5e6, 1e6),
    ]
    assert slices[0]["name"] == "3 decode"
    assert slices[2]["name"] == "1 decode + 1 prefill"
    assert slices[2]["args"]["prefill_tokens"] == 512


def test_every_instance_has_a_named_track_idle_or_not(tmp_path, make_tiny):
    names = events(write_timeline(make_tiny(instances=3), tmp_path / "t.json"), "M")
    tracks = [event["args"]["name"] for event in names if event["name"] == "thread_name"]
    assert tracks == ["instance 0", "instance 1", "instance 2"]


def test_kv_use_is_a_counter_per_instance(tmp_path, run):
    first = events(write_timeline(run, tmp_path / "t.json"), "C")[0]
    assert (first["name"], first["ts"], first["args"]) == ("KV blocks, instance 0", 0.0, {"used": 7})


def test_a_migrations_arrow_begins_and_ends_inside_segments(tmp_path, run):
    path = write_timeline(run, tmp_path / "t.json")
    [start], [end] = events(path, "s"), events(path, "f")
    assert (start["tid"], start["ts"]) == (0, 0.5e6)
    # The destination was idle when the copy ended at 1.2 s: the arrow ends where its next segment begins.
    assert (end["tid"], end["ts"], end["bp"]) == (1, 1.5e6, "e")
    assert start["id"] == end["id"]


def test_a_request_that_moves_on_is_one_flow_over_its_instances(tmp_path, make_tiny):
    run = make_tiny(
        iterations=[{"instance": instance, "end_s": 9.0} for instance in range(3)],
        migrations=[
            {"request_id": "r1", "source": 1, "destination": 2, "start_s": 5.0, "end_s": 6.0},
            {"request_id": "r2", "source": 0, "destination": 2, "start_s": 3.0, "end_s": 4.0},
            {"request_id": "r1", "source": 0, "destination": 1, "start_s": 1.0, "end_s": 2.0},
        ],
    )
    path = write_timeline(run, tmp_path / "t.json")
    flow = [event for phase in "stf" for event in events(path, phase) if event["name"] == "request r1"]
    assert len({event["id"] for event in flow}) == 1
    assert [(event["ph"], event["tid"], event["ts"]) for event in flow] == [
        ("s", 0, 1e6),
        ("t", 1, 2e6),
        ("t", 1, 5e6),
        ("f", 2, 6e6),
    ]
    assert len({event["id"] for event in events(path, "s")}) == 2


def test_boundaries_are_counters_that_step_when_they_move(tmp_path, make_tiny):
    plan = (Stage(0, 1000, (0,)), Stage(1000, 8000, (1,)))
    moves = [{"time_s": 2.0, "stage": 0, "hi_tokens": 1500}, {"time_s": 4.0, "stage": 0, "hi_tokens": 1200}]
    run = make_tiny(plan=plan, boundaries=moves)

    def boundary(name, window=None):
        path = write_timeline(run, tmp_path / name, window)
        return [(event["name"], event["ts"], event["args"]["tokens"]) for event in events(path, "C")]

    name = "boundary of stage 0"
    assert boundary("whole.json") == [(name, 0.0, 1000), (name, 2e6, 1500), (name, 4e6, 1200)]
    assert boundary("part.json", (3.0, 5.0)) == [(name, 3e6, 1500), (name, 4e6, 1200)]


def test_a_refused_migration_is_shown_but_has_no_arrow(tmp_path, make_tiny):
    refused = {"status": "refused", "reason": "no room", "asked_s": 0.25}
    never = dict.fromkeys(("start_s", "pause_start_s", "end_s", "pause_s"), float("nan"))
    run = make_tiny(iterations=[{}, {"instance": 1}], migrations=[refused | never])
    path = write_timeline(run, tmp_path / "t.json")
    [shown] = [event for event in events(path, "X") if event["pid"] == MIGRATIONS]
    assert (shown["ts"], shown["dur"], shown["args"]["reason"]) == (0.25e6, 0.0, "no room")
    assert events(path, "s") == []


def test_migrations_at_the_same_time_take_tracks_of_their_own_and_free_them(tmp_path, make_tiny):
    times = [(0.0, 1.0), (0.5, 2.0), (1.0, 3.0)]
    run = make_tiny(migrations=[{"start_s": start, "end_s": end} for start, end in times], instances=2)
    slices = events(write_timeline(run, tmp_path / "t.json"), "X")
    assert [event["tid"] for event in slices] == [0, 1, 0]


def test_a_window_keeps_what_overlaps_it(tmp_path, run):
    path = write_timeline(run, tmp_path / "t.json", window=(1.9, 2.1))
    assert [(event["tid"], event["ts"]) for event in events(path, "X")] == [(0, 2e6), (1, 1.5e6)]


@pytest.mark.slow
def test_slices_of_one_track_never_overlap(tmp_path, make_run):
    path = write_timeline(make_run("l4", stages=3), tmp_path / "t.json")
    free_us: dict[tuple[int, int], float] = {}
    for event in events(path, "X"):
        track = (event["pid"], event["tid"])
        assert event["ts"] >= free_us.get(track, 0.0) - 1e-3
        free_us[track] = event["ts"] + event["dur"]


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(tmp_path, make_run):
    paths = [write_timeline(make_run("l4", stages=3), tmp_path / name) for name in ("a.json", "b.json")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_an_empty_window_and_an_unwritable_file_are_refused(tmp_path, run):
    with pytest.raises(InputError, match=r"window 2\.0\.\.1\.0"):
        write_timeline(run, tmp_path / "t.json", window=(2.0, 1.0))
    with pytest.raises(InputError, match="cannot be written"):
        write_timeline(run, tmp_path / "missing" / "t.json")
