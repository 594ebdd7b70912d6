"""The files that start a run elsewhere: they parse, and what they start is a command of ours."""

import math
import os
import re
import subprocess
import tomllib

import pytest
import yaml

from tests.conftest import one_line_error
from tests.server import REPO

EXAMPLES = REPO / "examples"
ALONE = ("--coordinator=localhost:1", "--num_processes=1", "--process_id=0")
# Shell functions in place of what a cluster has; the command's own lines stay as they are.
PRINTED = """
.venv/bin/python() { printf '%s\\n' "${@:3}"; return 75; }
srun() { "$@"; }
scontrol() { echo "scontrol $*"; }
"""
HOSTS = {
    "SLURM_JOB_ID": "17",
    "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NODE_RANK": "1",
}


def shell(text: str, status: int) -> list[str]:
    """The lines that a shell script prints, where the cluster's commands print what they start."""
    process = subprocess.run(
        ["bash", "-c", PRINTED + text],
        env=os.environ | HOSTS,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (process.returncode, process.stderr) == (status, "")
    return process.stdout.splitlines()


def read_yaml(name: str) -> dict:
    return yaml.safe_load((EXAMPLES / name).read_text())


def pods() -> dict:
    """The JobSet's job."""
    (job,) = read_yaml("jobset.yaml")["spec"]["replicatedJobs"]
    return job["template"]["spec"]


def slurm() -> list[str]:
    *arguments, told = shell((EXAMPLES / "slurm.sh").read_text(), status=75)
    assert told == "scontrol requeue 17"
    return arguments


def skypilot() -> list[str]:
    return shell(read_yaml("skypilot.yaml")["run"], status=75)


def jobset() -> list[str]:
    (container,) = pods()["template"]["spec"]["containers"]
    python, module, name, *arguments = container["command"]
    assert (python, module, name) == ("python", "-m", "glscl_jax.train")
    return arguments


@pytest.mark.parametrize("started", [slurm, skypilot, jobset])
def test_what_is_started_lacks_nothing_but_the_data(forks, tmp_path, started):
    """Every flag is known, the recipe is found, its settings are taken."""
    arguments = [argument.replace("/shared", str(tmp_path)) for argument in started()]
    assert "--peer_timeout" in " ".join(arguments) or started is slurm
    error = one_line_error(forks("glscl_jax.train", *arguments, *ALONE, check=False))
    assert f"{tmp_path}/prepared/msrvtt_9k" in error
    assert not list(tmp_path.iterdir())


def test_skypilot_s_hosts_are_told_by_flags():
    told = " ".join(skypilot())
    assert "--coordinator 10.0.0.1:1234 --num_processes 2 --process_id 1" in told


def test_slurm_sees_one_task_a_host():
    text = (EXAMPLES / "slurm.sh").read_text()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.+)$", text, re.MULTILINE))
    assert options["ntasks-per-node"] == "1"
    # To the tasks, not to the shell alone, which "B:" would be.
    assert options["signal"].startswith("TERM@")


def test_the_jobset_has_the_hosts_of_its_slice():
    job, pod = pods(), pods()["template"]["spec"]
    chips = int(pod["containers"][0]["resources"]["limits"]["google.com/tpu"])
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    slice_chips = math.prod(map(int, topology.split("x")))
    assert job["parallelism"] == job["completions"] == slice_chips // chips
    assert {volume["name"] for volume in pod["volumes"]} == {"shared"}


def test_the_image_gets_what_the_package_is_made_of_and_no_more():
    lines = (REPO / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    admitted = {line[1:] for line in lines if line.startswith("!")}
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    found = project["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {pattern.removesuffix("*") for pattern in found}
    files = {"pyproject.toml", "requirements*.txt", "requirements.lock"}
    files |= {project["project"]["readme"], *project["project"]["license-files"]}
    assert admitted == packages | files
    # All of them are there, but for the pattern.
    assert all((REPO / name).exists() for name in admitted - {"requirements*.txt"})


def test_the_image_is_not_root_s_and_python_gets_its_signals():
    *_, last = re.split(r"^FROM ", (REPO / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert re.search(r"^USER [1-9]\d*$", last, re.MULTILINE)
    assert re.search(r'^CMD \["python", ', last, re.MULTILINE)


def test_the_image_takes_the_python_that_the_package_takes():
    (python,) = re.findall(r"^ARG PYTHON=3\.(\d+)\.\d+$", (REPO / "Dockerfile").read_text(), re.M)
    assert 11 <= int(python) <= 13
