"""Training as a user runs it: processes that log, save, are killed, and go on exactly."""

import gzip
import json
import random
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from glscl_jax.checkpoints.model_dir import load_model
from glscl_jax.runtime import sharding
from glscl_jax.runtime.preemption import PREEMPTED_STATUS
from tests import small_disk
from tests.conftest import REPO, one_line_error, program_environment
from tests.events import tensorboard_scalars

STEPS = 14


def arguments(shapes, workdir, *more):
    return (
        "--config=configs/demo.py:tiny",
        f"--workdir={workdir}",
        f"--config.data.dir={shapes / 'data'}",
        f"--config.num_steps={STEPS}",
        "--config.validate_every=7",
        "--config.checkpoint_every=3",
        "--config.log_every=1",
        "--config.data.num_frames=2",
        # All that a run can carry along is to come through kills and restarts.
        "--config.optim.ema=0.9",
        "--config.optim.frozen=('^clip/text/transformer/blocks/0/',)",
        *more,
    )


@pytest.fixture(scope="module")
def trained(shapes, forks, tmp_path_factory):
    """A run that nobody disturbed, traced for two steps: (work directory, what it printed)."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    process = forks("glscl_jax.train", *arguments(shapes, workdir), "--profile=2:3")
    return workdir, process.stdout


def parameters(workdir, step=STEPS):
    sharded = sharding.replicated(sharding.make_mesh(jax.devices()[:1]))
    return jax.tree.leaves(load_model(workdir, sharded, step).params)


def figures(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_writes_down_what_it_did(trained):
    workdir, printed = trained
    assert f"trained to step {STEPS}" in printed
    line = next(line for line in printed.splitlines() if line.startswith("step 7/14  loss"))
    for told in (
        "contrastive",
        "diversity",
        "consistency",
        "lr ",
        "scale",
        "clips/s",
        "input",
        "left",
    ):
        assert told in line
    logged = figures(workdir)
    losses = [row["loss/total"] for row in logged if "loss/total" in row]
    # The first step compiles and has no speed to tell.
    assert len(losses) == STEPS - 1
    assert np.isfinite(losses).all()
    assert [row["step"] for row in logged if "validation/R@1" in row] == [7, 14]
    assert json.loads((workdir / "config.json").read_text())["num_steps"] == STEPS
    told = (
        "plan: 32 pairs of 32 clips, 8 a batch; 4 updates an epoch (steps_per_epoch), 14 in all\n"
    )
    assert told in printed
    plan = json.loads((workdir / "plan.json").read_text())
    shown = {name: plan[name] for name in ("pairs", "steps_per_epoch", "num_steps")}
    assert shown == {"pairs": 32, "steps_per_epoch": 4, "num_steps": STEPS}
    assert json.loads((workdir / "model.json").read_text())["clip"]["embed_dim"] == 128


def test_tensorboard_has_the_same_scalars(trained):
    workdir, _ = trained
    (events,) = workdir.glob("events.out.tfevents.*")
    logged = {name for row in figures(workdir) for name in row.keys() - {"step"}}
    assert {"loss/total", "learning_rate/clip", "speed/input_wait", "validation/R@1"} <= logged
    assert tensorboard_scalars(events).keys() == logged


def test_the_files_lie_where_tensorboard_looks(trained):
    (time,) = (trained[0] / "profile" / "plugins" / "profile").iterdir()
    (plane,) = time.glob("*.xplane.pb")
    raw = plane.read_bytes()
    planes = jax.profiler.ProfileData.from_serialized_xspace(raw).planes
    names = [event.name for plane in planes for line in plane.lines for event in line.events]
    assert names.count("train") == 2


def test_perfetto_finds_the_steps_and_what_ran_in_them(trained):
    (path,) = trained[0].glob("profile/plugins/profile/*/perfetto_trace.json.gz")
    with gzip.open(path) as file:
        events = json.load(file)["traceEvents"]
    steps = {
        event["args"]["step_num"]: (event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("name") == "train"
    }
    assert sorted(map(int, steps)) == [2, 3]
    # The step's matrix products, each within one of the two or right after it.
    products = [event for event in events if event.get("name", "").startswith("dot")]
    start, end = min(a for a, _ in steps.values()), max(b for _, b in steps.values())
    inside = [event for event in products if start <= event["ts"] <= end]
    assert len(inside) > 20
    assert len(inside) == len(products)


def test_the_best_and_the_last_checkpoints_are_kept(trained):
    workdir, _ = trained
    kept = {int(path.name) for path in (workdir / "checkpoints").iterdir()}
    scores = {
        row["step"]: row["validation/R@1"] for row in figures(workdir) if "validation/R@1" in row
    }
    assert {12, 14} <= kept
    assert any(scores[step] == max(scores.values()) for step in kept & scores.keys())
    assert len(kept) <= 3


def test_a_finished_run_has_nothing_left_to_do(trained, shapes, forks):
    workdir, _ = trained
    before = figures(workdir)
    again = forks("glscl_jax.train", *arguments(shapes, workdir))
    assert "nothing to train" in again.stdout
    assert figures(workdir) == before


def test_a_run_can_start_from_another_s_parameters(trained, shapes, forks, tmp_path):
    # The first step's rate is 0, so after it the parameters are still those that came in. A step
    # that other tests have compiled.
    forks(
        "glscl_jax.train",
        "--config=configs/demo.py:tiny",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.dir={shapes / 'data'}",
        "--config.data.validation_split=",
        "--config.num_steps=4",
        "--config.checkpoint_every=1",
        "--config.keep_checkpoints=4",
        f"--config.init_from={trained[0]}",
    )
    best = parameters(trained[0], step=None)
    for one, other in zip(best, parameters(tmp_path / "run", 1), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_another_head_starts_fresh_on_a_run_s_encoders(trained, shapes, forks, tmp_path):
    flags = ("--config.num_steps=1", "--config.seed=5", "--config.model.head.name=wti")
    done = forks(
        "glscl_jax.train",
        *arguments(shapes, tmp_path / "run", *flags),
        f"--config.init_from={trained[0]}",
    )
    assert (
        "its head glscl is left behind, the head wti starts fresh (token_weights, " in done.stdout
    )
    where = sharding.replicated(sharding.make_mesh(jax.devices()[:1]))
    theirs, ours = (load_model(path, where).params for path in (trained[0], tmp_path / "run"))
    assert theirs.keys() == {"clip", "temporal", "lim"}
    assert ours.keys() == {"clip", "temporal", "token_weights", "frame_weights"}
    # Its one step had the rate 0.
    for part in ("clip", "temporal"):
        jax.tree.map(np.testing.assert_array_equal, ours[part], theirs[part])
    # It goes on as a run under its own head, whatever it started from.
    again = forks("glscl_jax.train", *arguments(shapes, tmp_path / "run", *flags))
    assert "nothing to train" in again.stdout


def test_told_to_end_at_any_moment_it_ends_the_same(trained, shapes, forks, tmp_path):
    workdir, tell = tmp_path / "ended", random.Random().randrange(2, STEPS)
    print("told to end after step", tell)
    end_and_go_on(tell, shapes, workdir, forks)
    assert_ended_alike(workdir, trained[0])


@pytest.mark.slow
def test_killed_and_then_told_to_end_it_ends_the_same(trained, shapes, forks, tmp_path):
    workdir = tmp_path / "ended"
    kill, tell = sorted(random.Random().sample(range(2, STEPS), 2))
    print("killed after step", kill, "told to end after step", tell)
    process = until(kill, forks.start("glscl_jax.train", *arguments(shapes, workdir)))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    end_and_go_on(tell, shapes, workdir, forks)
    assert_ended_alike(workdir, trained[0])


def end_and_go_on(tell, shapes, workdir, forks):
    """Starts the run, tells it to end once it has done step `tell`, and starts it again."""
    process = until(tell, forks.start("glscl_jax.train", *arguments(shapes, workdir)))
    process.send_signal(signal.SIGTERM)
    told, status = process.stdout.read(), process.wait()
    # Told in its last step it has nothing left to save for.
    if status:
        assert status == PREEMPTED_STATUS
        saved = int(re.search(rf"saved at step (\d+) of {STEPS}", told)[1])
        assert (workdir / "checkpoints" / str(saved)).is_dir()
        again = forks("glscl_jax.train", *arguments(shapes, workdir))
        assert f"from step {saved} " in again.stdout


def assert_ended_alike(workdir, trained):
    for one, other in zip(parameters(trained), parameters(workdir), strict=True):
        np.testing.assert_array_equal(one, other)
    # The log, too, reads as if nothing had happened (but for speeds and each restart's first step).
    whole = {row["step"]: row["loss/total"] for row in figures(trained) if "loss/total" in row}
    pieced = [(row["step"], row["loss/total"]) for row in figures(workdir) if "loss/total" in row]
    assert all(whole[step] == loss for step, loss in pieced)
    assert len({step for step, _ in pieced}) == len(pieced)


def until(step, process):
    """The same run, once it has said that it did this step, or a later one."""
    for line in process.stdout:
        if line.startswith("step ") and int(line.split()[1].split("/")[0]) >= step:
            return process
    raise AssertionError(f"it ended before step {step} with {process.wait()}")


@pytest.mark.slow
@pytest.mark.skipif(not small_disk.possible(), reason="no user may mount a small disk here")
def test_a_full_disk_keeps_the_last_good_checkpoint(shapes, forks, tmp_path):
    """As the checkpoints' own test has it, with all that a run does around them."""
    disk = tmp_path / "disk"
    disk.mkdir()
    small = ("tests.small_disk", disk, "30m", disk / "run" / "checkpoints")
    train = ("glscl_jax.train", *arguments(shapes, disk / "run"))
    done = forks(*small, *train, check=False)
    error = one_line_error(done)
    assert "could not be written" in error
    assert "No space left on device" in error
    assert "the last good one is step 3" in error
    # It is still there when the program has ended, and the failed one has no final name.
    kept = json.loads(done.stdout.splitlines()[-1])
    assert "3" in kept
    assert "6" not in kept


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--config.batch_sise=4", "batch_sise"),
        ("--config.batch_size=many", "batch_size"),
        ("--config.model.temporal=seqGRU", "seqGRU"),
        ("--config.batch_size=33", "33"),
        ("--config.data.frame_rate=1.0", "frame_rate"),
        ("--config.data.train_split=training", "training"),
        ("--config.data.validation_split=valid", "valid"),
        ("--config.data.dir=nowhere", "nowhere"),
        ("--config.data.tokenizer=nowhere.txt", "nowhere.txt"),
        ("--config.data.num_words=100", "num_words"),
        ("--config.data.num_frames=33", "num_frames 33 is more than the temporal module's 32"),
        ("--config.optim.clip_numerics=float8", "float8"),
        # tests/test_ranges.py has all of this kind.
        ("--config.optim.b1=1.5", "b1 is 1.5: give a finite number, 0 or more, below 1"),
        ("--config.log_every=0", "config.log_every is 0: give a whole number, 1 or more"),
        ("--config.seed=-1", "config.seed is -1"),
        ("--config.model.dtype=fp16", "dtype is 'fp16': give one of float32, bfloat16, float16"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_is_made(shapes, refusal, tmp_path, flag, told):
    error = refusal("glscl_jax.train", *arguments(shapes, tmp_path / "run", flag))
    assert told in error
    assert not (tmp_path / "run").exists()


def test_batch_size_and_devices(shapes, forks, tmp_path):
    process = forks(
        "glscl_jax.train",
        *arguments(shapes, tmp_path / "run", "--config.batch_size=6"),
        devices=4,
        check=False,
    )
    assert "batch_size 6 is not divisible by the 4 devices" in one_line_error(process)


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--config.model.head.queries=5", "queries 8, now 5"),
        ("--config.batch_size=16", "batch_size 8, now 16"),
        ("--config.seed=1", "seed"),
    ],
)
def test_a_workdir_of_another_run_is_left_alone(trained, shapes, refusal, flag, told):
    workdir, _ = trained
    before = (workdir / "config.json").read_text()
    error = refusal("glscl_jax.train", *arguments(shapes, workdir, flag))
    assert told in error
    assert "--workdir" in error
    assert (workdir / "config.json").read_text() == before


@pytest.mark.slow
def test_told_to_end_with_nobody_reading_it_saves_all_the_same(shapes, run_program, tmp_path):
    # An interpreter of its own, which comes to its usual end.
    process = subprocess.Popen(
        [sys.executable, "-m", "glscl_jax.train", *arguments(shapes, tmp_path / "run")],
        cwd=REPO,
        env=program_environment(run_program.cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    until(2, process)
    process.stdout.close()
    process.terminate()
    assert process.wait(timeout=60) == PREEMPTED_STATUS
    last = figures(tmp_path / "run")[-1]["step"]
    assert (tmp_path / "run" / "checkpoints" / str(last)).is_dir()
