"""Several real processes that train one model: the same numbers, one set of files, no hanging."""

import contextlib
import csv
import json
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from glscl_jax.checkpoints.model_dir import load_model
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.evaluation import rank_files
from glscl_jax.runtime import sharding
from glscl_jax.runtime.launch import PEER_LOST_STATUS
from tests.conftest import REPO, one_line_error, program_environment
from tests.metadata import Metadata

TRAIN = "glscl_jax.train"
STEPS = 8


def arguments(shapes, workdir, *more):
    return (
        "--config=configs/demo.py:tiny",
        f"--workdir={workdir}",
        f"--config.data.dir={shapes / 'data'}",
        f"--config.num_steps={STEPS}",
        f"--config.validate_every={STEPS}",
        "--config.checkpoint_every=2",
        "--config.log_every=1",
        *more,
    )


def free_port():
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def together(count):
    """The flags of so many processes that meet on this machine."""
    shared = (
        f"--coordinator=127.0.0.1:{free_port()}",
        f"--num_processes={count}",
        "--peer_timeout=20",
    )
    return [(*shared, f"--process_id={number}") for number in range(count)]


def parameters(workdir):
    sharded = sharding.replicated(sharding.make_mesh(jax.devices()[:1]))
    return load_model(workdir, sharded, STEPS).params


def assert_same_parameters(one, other):
    """To 1e-5 of each tensor's norm."""

    def check(a, b):
        assert np.linalg.norm(a - b) <= 1e-5 * max(float(np.linalg.norm(b)), 1e-3)

    jax.tree.map(check, one, other)


def figures(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def assert_same_figures(workdir, other):
    """Every loss, norm and recall that two runs wrote down."""
    for one, two in zip(figures(workdir), figures(other), strict=True):
        assert one["step"] == two["step"]
        for name in one:
            if name.startswith(("loss/", "validation/", "gradient_norm")):
                # Consistency and diversity are differences of what is nearly alike.
                assert one[name] == pytest.approx(two[name], rel=1e-5, abs=1e-6)


@pytest.fixture(scope="module")
def alone(shapes, forks, tmp_path_factory):
    """A run of one process with four devices."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    forks(TRAIN, *arguments(shapes, workdir), devices=4)
    return workdir


@pytest.mark.slow
def test_two_processes_of_two_devices_train_as_one_of_four(shapes, forks, tmp_path, alone):
    workdir = tmp_path / "run"
    runs = [(TRAIN, *arguments(shapes, workdir, *flags)) for flags in together(2)]
    first, second = forks.together(*runs, devices=2)
    assert "on 4 x cpu (cpu) of 2 processes" in first.stdout
    assert f"trained to step {STEPS}" in first.stdout
    # Told once, written once.
    assert "step " not in second.stdout
    assert_same_figures(workdir, alone)
    assert_same_parameters(parameters(workdir), parameters(alone))


@pytest.mark.slow
def test_two_processes_start_from_a_checkpoint_as_one_does(shapes, forks, tmp_path, alone):
    begin = (f"--config.init_from={alone}", "--config.data.validation_split=", "--config.seed=1")
    forks(TRAIN, *arguments(shapes, tmp_path / "one", *begin), devices=4)
    two = arguments(shapes, tmp_path / "two", *begin)
    first, _ = forks.together(*[(TRAIN, *two, *flags) for flags in together(2)], devices=2)
    assert f"starting from {alone}: " in first.stdout
    # The parameters themselves part sooner than those of a fresh start: Adam divides gradients by
    # their own size, and of a trained model's many are hardly more than their rounding.
    assert_same_figures(tmp_path / "two", tmp_path / "one")
    # They did not stay as they were.
    with pytest.raises(AssertionError):
        assert_same_parameters(parameters(tmp_path / "one"), parameters(alone))


@pytest.mark.slow
def test_of_four_processes_one_dies_and_the_others_name_it(
    shapes, forks, tmp_path, alone, run_program
):
    """And those that are started again go on."""
    workdir = tmp_path / "run"
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", TRAIN, *arguments(shapes, workdir, *flags, "--peer_timeout=6")],
            cwd=REPO,
            env=program_environment(run_program.cache, devices=1),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for flags in together(4)
    ]
    try:
        for line in processes[0].stdout:
            if line.startswith("step 3/"):
                break
        processes[2].kill()
        for number in (0, 1, 3):
            _, told = processes[number].communicate(timeout=60)
            assert processes[number].returncode == PEER_LOST_STATUS, told
            assert "error: lost process 2 on " in told
    finally:
        for process in processes:
            process.kill()
            process.wait()
    # On in one process with four devices.
    again = forks(TRAIN, *arguments(shapes, workdir), devices=4)
    assert "from step 0 " not in again.stdout
    assert_same_parameters(parameters(workdir), parameters(alone))


@pytest.mark.slow
def test_two_processes_that_srun_started_find_each_other(shapes, forks, tmp_path):
    """By the variables that SLURM sets for a step of two tasks on one node."""
    workdir = tmp_path / "run"
    step = {
        "JAX_COORDINATOR_PORT": str(free_port()),
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": "2",
    }
    tasks = [{**step, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(2)]
    runs = [(TRAIN, *arguments(shapes, workdir)) for _ in tasks]
    first, _ = forks.together(*runs, devices=2, environments=tasks)
    assert "on 4 x cpu (cpu) of 2 processes" in first.stdout
    assert f"trained to step {STEPS}" in first.stdout


# As JAX starts where there is a TPU; it takes this machine for one, and knows better at once.
ON_TPU = """
import os, runpy, sys
import jax
os.environ.pop("TPU_SKIP_MDS_QUERY", None)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("told_by", ["GKE's variables", "a metadata server"])
def test_two_hosts_of_a_tpu_pod_find_each_other(tmp_path, run_program, told_by):
    """And see that they are not of one mind, before anything costs time."""
    port = str(free_port())
    with contextlib.ExitStack() as servers:

        def variables(number):
            if told_by == "GKE's variables":
                hosts = "127.0.0.1,127.0.0.1"
                return {"TPU_PROCESS_ADDRESSES": hosts, "TPU_WORKER_ID": str(number)}
            endpoints = {"worker-network-endpoints": "127.0.0.1,127.0.0.1", "tpu-env": ""}
            values = {"agent-worker-number": str(number), **endpoints}
            return {"GCE_METADATA_IP": servers.enter_context(Metadata(values)).address}

        told = (TRAIN, "--config=configs/demo.py:tiny", f"--workdir={tmp_path / 'run'}")
        runs = [
            subprocess.Popen(
                [sys.executable, "-c", ON_TPU, *told, f"--config.seed={number}"],
                cwd=REPO,
                env=program_environment(run_program.cache, devices=1)
                | {"JAX_FORCE_TPU_INIT": "1", "JAX_COORDINATOR_PORT": port}
                | {"GCE_METADATA_IP": "127.0.0.1:1"}
                | variables(number),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(2)
        ]
        for run in runs:
            out, errors = run.communicate(timeout=240)
            done = subprocess.CompletedProcess(run.args, run.returncode, out, errors)
            assert "config.seed is 0 in process 0, 1 in process 1" in one_line_error(done)


@pytest.mark.slow
def test_two_processes_evaluate_as_one_does(shapes, forks, tmp_path, alone):
    told = ("glscl_jax.evaluate", f"--checkpoint={alone}", "--top_k=3", "--noreport")
    forks(*told, f"--out={tmp_path / 'one'}")
    runs = [(*told, f"--out={tmp_path / 'two'}", *flags) for flags in together(2)]
    first, second = forks.together(*runs, devices=2)
    assert "text-to-video" in first.stdout
    # Told once, written once.
    assert "text-to-video" not in second.stdout
    for name in (rank_files.RANKS, rank_files.TOP):
        one, two = ((tmp_path / folder / name).read_text() for folder in ("one", "two"))
        assert ranks_in(one) == ranks_in(two)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "told"),
    [
        ("another step", "checkpoint.step is 8 in process 0, 6 in process 1"),
        (
            "another model",
            "checkpoint.model.head.temperature is 3.0 in process 0, 4.0 in process 1",
        ),
        ("other parameters", "parameters is "),
    ],
)
def test_processes_must_have_the_same_checkpoint(forks, tmp_path, alone, other, told):
    """Whatever it is in which the directory of another host differs."""
    theirs = tmp_path / "theirs"
    shutil.copytree(alone, theirs)
    last, before = (theirs / "checkpoints" / str(step) for step in (STEPS, STEPS - 2))
    if other == "another step":
        shutil.rmtree(last)
    elif other == "another model":
        model = json.loads((theirs / "model.json").read_text())
        model["head"]["temperature"] = 4.0
        (theirs / "model.json").write_text(json.dumps(model))
    else:
        # The same step and settings: only their hash tells these numbers apart.
        shutil.rmtree(last / "params")
        shutil.copytree(before / "params", last / "params")
    runs = [
        ("glscl_jax.evaluate", f"--checkpoint={where}", f"--out={tmp_path / 'out'}", *flags)
        for flags, where in zip(together(2), (alone, theirs), strict=True)
    ]
    assert told in refused_together(forks, *runs)
    assert not (tmp_path / "out").exists()


def ranks_in(text):
    """Rows of a CSV file without scores, which are sums in another order."""
    return [
        {name: value for name, value in row.items() if name != "score"}
        for row in csv.DictReader(text.splitlines())
    ]


def test_processes_must_agree(shapes, forks, tmp_path):
    workdir = tmp_path / "run"
    runs = [
        (TRAIN, *arguments(shapes, workdir, *flags, f"--config.seed={seed}"))
        for seed, flags in enumerate(together(2))
    ]
    for done in forks.together(*runs, check=False):
        assert "config.seed is 0 in process 0, 1 in process 1" in one_line_error(done)
    assert not workdir.exists()


def refused_together(forks, *runs):
    """The line with which all of them end."""
    lines = {one_line_error(done) for done in forks.together(*runs, check=False)}
    assert len(lines) == 1
    return lines.pop()


def test_processes_must_have_the_same_data(shapes, forks, tmp_path):
    """Wherever it lies: copies are, others in the same place on another host are not."""
    other = tmp_path / "other"
    forks(
        "glscl_jax.input_pipeline.prepare",
        "--dataset=folder",
        f"--source={shapes / 'videos'}",
        f"--data_dir={other}",
        "--frame_rate=2",
        "--image_size=32",
        "--jpeg_quality=50",
    )
    workdir = tmp_path / "run"
    runs = [
        (TRAIN, *arguments(shapes, workdir, *flags, f"--config.data.dir={where}"))
        for flags, where in zip(together(2), (shapes / "data", other), strict=True)
    ]
    told = refused_together(forks, *runs)
    assert "data.jpeg_quality is" in told
    assert "50 in process 1" in told
    assert not workdir.exists()


def test_a_process_without_its_data_ends_all(shapes, forks, tmp_path):
    workdir, missing = tmp_path / "run", tmp_path / "missing"
    runs = [
        (TRAIN, *arguments(shapes, workdir, *flags, f"--config.data.dir={where}"))
        for flags, where in zip(together(2), (shapes / "data", missing), strict=True)
    ]
    told = refused_together(forks, *runs)
    assert told.startswith("error: process 1 on ")
    assert f"{missing}: no prepared data set in it" in told
    assert not workdir.exists()


def test_a_work_directory_that_is_not_shared(shapes, forks, tmp_path):
    runs = [
        (TRAIN, *arguments(shapes, tmp_path / str(number), *flags, "--peer_timeout=8"))
        for number, flags in enumerate(together(2))
    ]
    told = refused_together(forks, *runs)
    assert f"--workdir {tmp_path / '1'} is not the directory that process 0 has" in told
    assert not list((tmp_path / "0").iterdir())


def test_processes_must_evaluate_the_same(forks, tmp_path):
    runs = [
        ("glscl_jax.evaluate", f"--checkpoint={tmp_path}", f"--split={split}", *flags)
        for split, flags in zip(("val", "test"), together(2), strict=True)
    ]
    told = refused_together(forks, *runs)
    assert '--split is "val" in process 0, "test" in process 1' in told


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--num_processes=2"], "--num_processes needs --coordinator"),
        (["--coordinator=here:1"], "--coordinator needs --num_processes"),
        (
            ["--coordinator=here", "--num_processes=2", "--process_id=0"],
            "--coordinator here: give host:port",
        ),
        (
            ["--coordinator=here:1", "--num_processes=2", "--process_id=2"],
            "--process_id 2 of --num_processes 2: take 0 to 1",
        ),
        (
            [*together(2)[1], "--peer_timeout=2"],
            "could not be reached within 2 s",
        ),
    ],
)
def test_flags_that_do_not_lead_to_the_others(refusal, tmp_path, flags, told):
    workdir = tmp_path / "run"
    error = refusal(TRAIN, "--config=configs/demo.py:tiny", f"--workdir={workdir}", *flags)
    assert told in error
    assert not workdir.exists()


def test_a_work_directory_in_use_by_another_run(shapes, refusal, tmp_path):
    workdir = tmp_path / "run"
    with Workdir(workdir).claimed():
        error = refusal(TRAIN, *arguments(shapes, workdir))
    assert "another run is in it" in error
