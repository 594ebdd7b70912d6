"""What is asked of Apache Beam: options that it has, and that it is there (see test_beam.py)."""

import importlib.util

import pytest

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.preparing import beam
from tests.conftest import REPO

HAS_BEAM = importlib.util.find_spec("apache_beam") is not None
needs_beam = pytest.mark.skipif(not HAS_BEAM, reason="no Apache Beam: see requirements-beam.txt")


@needs_beam
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--direct_num_workers=many", "invalid int value: 'many'"),
        ("--direct_running_mode=quickly", "invalid choice"),
        ("--direct_num_worker=2", "it has no --direct_num_worker$"),
        ("'", "No closing quotation"),
    ],
)
def test_wrong_options(options, told):
    with pytest.raises(UserError, match=f"--beam_options .*{told}"):
        beam.engine("DirectRunner", options, 1)


@needs_beam
def test_the_command_lines_of_the_docs_are_understood():
    """Those for clusters, which are not run here, have no flag that Beam does not know."""
    text = (REPO / "docs" / "data.md").read_text()
    lines = text.replace("\\\n", " ").splitlines()
    told = [line for line in lines if "--beam_runner=" in line and "--beam_options=" in line]
    seen = set()
    for line in told:
        runner = line.split("--beam_runner=")[1].split()[0]
        engine = beam.engine(runner, line.split("--beam_options='")[1].split("'")[0], 2)
        assert not beam._unknown(engine["beam_options"]), line
        seen.add(runner)
    assert seen == {"SparkRunner", "FlinkRunner", "PortableRunner", "DataflowRunner"}


@pytest.mark.skipif(HAS_BEAM, reason="Apache Beam is here")
def test_without_beam_it_says_how_to_have_it():
    with pytest.raises(UserError, match=r"Apache Beam: pip install .* requirements-beam"):
        beam.engine("SparkRunner", "", 1)
