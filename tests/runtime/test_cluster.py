"""Who takes part, as SLURM, Open MPI and TPU pods say it: their variables, a metadata server."""

import os

import pytest
from jax._src.clusters import cloud_tpu_cluster

from glscl_jax.errors import UserError
from glscl_jax.runtime import cluster
from glscl_jax.runtime.cluster import Place
from tests.metadata import Metadata

TOLD = ("SLURM_", "OMPI_", "TPU_", "MEGASCALE_", "JAX_COORDINATOR", "GCE_METADATA", "JAX_LOCAL_")
SRUN = {
    "SLURM_JOB_ID": "1",
    "SLURM_STEP_NODELIST": "node[3-4]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
MPIRUN = {
    "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://10.0.0.1,10.1.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
# 127.0.0.9 needs no name server to be known.
HOSTS = "127.0.0.9,127.0.0.8"
POD = {
    "agent-worker-number": "1",
    "worker-network-endpoints": HOSTS,
    "tpu-env": "ACCELERATOR_TYPE: 'v4-16'\nWORKER_ID: '1'",
}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    """The variables of none."""
    for name in list(os.environ):
        if name.startswith(TOLD):
            monkeypatch.delenv(name)
    # Nothing answers there.
    monkeypatch.setenv("GCE_METADATA_IP", "127.0.0.1:1")


@pytest.fixture
def tpu(monkeypatch):
    """A machine with a TPU, and with JAX's build for it."""
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture
def environment(monkeypatch):
    return lambda told: [monkeypatch.setenv(name, value) for name, value in told.items()]


@pytest.fixture
def metadata(monkeypatch):
    with Metadata({}) as server:
        monkeypatch.setenv("GCE_METADATA_IP", server.address)
        yield server


def test_alone():
    assert cluster.place(1) is None
    assert cluster.own_gpu() is None


@pytest.mark.parametrize(
    ("told", "place", "gpu"),
    [
        (SRUN, Place("node3:61441", 2, 1), [0]),
        (SRUN | {"JAX_COORDINATOR_PORT": "7"}, Place("node3:7", 2, 1), [0]),
        (SRUN | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None, [0]),
        (MPIRUN, Place("10.0.0.1:61441", 4, 3), [1]),
        (MPIRUN | {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, None, [1]),
        (SRUN | {"JAX_LOCAL_DEVICE_IDS": "2,3"}, Place("node3:61441", 2, 1), None),
    ],
)
def test_variables_of_slurm_and_open_mpi(environment, told, place, gpu):
    environment(told)
    assert cluster.place(1) == place
    assert cluster.own_gpu() == gpu


def test_a_batch_script_is_one_process(environment):
    environment({name: value for name, value in SRUN.items() if name != "SLURM_STEP_NODELIST"})
    assert cluster.place(1) is None


@pytest.mark.parametrize("variable", ["TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"])
def test_gke_names_a_pod_s_hosts_by_variables(tpu, environment, variable):
    environment({variable: HOSTS, "TPU_WORKER_ID": "1"})
    assert cluster.place(1) == Place("127.0.0.9:8482", 2, 1)
    assert not [name for name in os.environ if name.startswith("MEGASCALE_")]


def test_gke_names_slices_too(tpu, environment):
    environment({"TPU_PROCESS_ADDRESSES": HOSTS, "TPU_WORKER_ID": "1", "MEGASCALE_SLICE_ID": "2"})
    environment({"MEGASCALE_NUM_SLICES": "3", "MEGASCALE_COORDINATOR_ADDRESS": "127.0.0.7:8080"})
    assert cluster.place(1) == Place("127.0.0.7:8482", 6, 5)


@pytest.mark.parametrize("endpoints", [HOSTS, "a:0:127.0.0.9,b:1:127.0.0.8"])
def test_a_metadata_server_tells_of_a_pod(tpu, metadata, endpoints):
    metadata.values |= POD | {"worker-network-endpoints": endpoints}
    assert cluster.place(1) == Place("127.0.0.9:8482", 2, 1)


def test_a_metadata_server_tells_of_slices(tpu, metadata):
    slices = "MEGASCALE_NUM_SLICES: '2'\nMEGASCALE_SLICE_ID: '1'"
    address = "MEGASCALE_COORDINATOR_ADDRESS: '127.0.0.7'"
    metadata.values |= POD | {"tpu-env": f"{slices}\n{address}"}
    assert cluster.place(1) == Place("127.0.0.7:8482", 4, 3)


@pytest.mark.parametrize(
    "values", [{}, POD | {"worker-network-endpoints": "127.0.0.9", "agent-worker-number": "0"}]
)
def test_a_tpu_machine_of_no_pod_is_alone(tpu, metadata, values):
    metadata.values |= values
    assert cluster.place(1) is None
    assert metadata.asked


def test_a_tpu_machine_that_is_not_to_ask(tpu, metadata, environment):
    metadata.values |= POD
    environment({"TPU_SKIP_MDS_QUERY": "1"})
    assert cluster.place(1) is None
    assert not metadata.asked


def test_a_machine_without_a_tpu_asks_nobody(metadata):
    metadata.values |= POD
    assert cluster.place(1) is None
    assert not metadata.asked


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({}, "process of a TPU pod, which does not tell who takes part .*: give --coordinator"),
        ({"TPU_PROCESS_ADDRESSES": HOSTS}, "process of a TPU pod, .*None"),
        ({"TPU_PROCESS_ADDRESSES": HOSTS, "TPU_WORKER_ID": "x"}, "process of a TPU pod, .*'x'"),
    ],
)
def test_a_pod_that_does_not_tell_is_no_machine_alone(tpu, environment, told, message):
    environment(told)
    with pytest.raises(UserError, match=message) as refused:
        cluster.place(1)
    assert "\n" not in str(refused.value)


def test_hosts_of_a_tpu_that_jax_does_not_find(environment):
    environment({"TPU_WORKER_HOSTNAMES": "a,b,c", "TPU_WORKER_ID": "0"})
    with pytest.raises(UserError, match=r"TPU_WORKER_HOSTNAMES names 3 hosts, .* no TPU here"):
        cluster.place(1)
    environment({"TPU_WORKER_HOSTNAMES": "localhost"})
    assert cluster.place(1) is None
