"""Paths as users give them: at home, and never a bucket taken for a folder."""

import importlib.util
import pathlib

import pytest
from ml_collections import ConfigDict

import glscl_jax
from glscl_jax import paths
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.prepared_data import open_data
from glscl_jax.input_pipeline.tokenizer_files import read_tokenizer

CONFIG = "--config=configs/demo.py:tiny"
BUCKET = "gs://bucket/there"


@pytest.mark.parametrize(
    "given",
    [
        BUCKET,
        "s3://b/x",
        "hdfs://node:9000/x",
        "https://host/x",
        "abfs+s://x",
        pathlib.Path(BUCKET),
    ],
)
def test_what_no_file_system_has_is_refused(given):
    with pytest.raises(UserError, match=r"--data_dir .* is not supported here, .* mount it"):
        paths.local(given, "--data_dir")


@pytest.mark.parametrize(
    ("given", "way_out"),
    [
        ("gs://b/x", r"\(gcsfuse\)"),
        ("S3://b/x", r"\(s3fs; .*mount-s3\)"),
        ("az://b/x", "only a file system is: mount it, or copy"),
    ],
)
def test_a_bucket_s_way_out_is_its_own(given, way_out):
    with pytest.raises(UserError, match=way_out):
        paths.local(given, "--workdir")


def test_a_file_s_address_is_told_as_a_path():
    with pytest.raises(UserError, match=r"--out file:///x: .*give the path alone"):
        paths.local("file:///x", "--out")


@pytest.mark.parametrize("given", ["a/b", "/a:b/c", "run:1", "x.py:tiny", "a b/č", "C:/x", ""])
def test_all_else_is_a_path(given):
    assert paths.local(given, "--out") == pathlib.Path(given)


def test_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert paths.local("~/runs/a~b", "--out") == pathlib.Path("/home/me/runs/a~b")
    assert paths.local("~", "--out") == pathlib.Path("/home/me")
    with pytest.raises(UserError, match=r"--out ~nobody\.there/x: whose home"):
        paths.local("~nobody.there/x", "--out")
    config = {"init_from": "~/w", "data": {"dir": "", "tokenizer": "openai/clip", "other": "~"}}
    config = ConfigDict(config)
    paths.expand(config)
    assert config.to_dict() == {
        "init_from": "/home/me/w",
        "data": {"dir": "", "tokenizer": "openai/clip", "other": "~"},
    }


def test_the_demo_s_tokenizer_is_no_folder_beside_it(tmp_path, monkeypatch):
    """`make demo` makes a folder of that name before it trains."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    for given, meant in (("demo", "demo"), ("./demo", f"{tmp_path}/demo")):
        config = ConfigDict({"init_from": "", "data": {"dir": "demo", "tokenizer": given}})
        paths.expand(config)
        assert config.data.tokenizer == meant
        assert config.data.dir == f"{tmp_path}/demo"


def test_a_config_s_paths_hold_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "merges.txt").touch()
    given = ("../weights", "prepared", "merges.txt"), ("/weights", "a/./b", "openai/clip")
    meant = (
        (f"{tmp_path}/../weights", f"{tmp_path}/prepared", f"{tmp_path}/merges.txt"),
        ("/weights", f"{tmp_path}/a/b", "openai/clip"),
    )
    for (init_from, data, tokenizer), expected in zip(given, meant, strict=True):
        section = {"dir": data, "tokenizer": tokenizer}
        config = ConfigDict({"init_from": init_from, "data": section})
        paths.expand(config)
        assert (config.init_from, config.data.dir, config.data.tokenizer) == expected


@pytest.mark.parametrize(
    ("program", "flags", "named"),
    [
        ("glscl_jax.train", ["--workdir={}", f"{CONFIG[:9]}{BUCKET}"], "--config"),
        (
            "glscl_jax.train",
            [CONFIG, "--workdir={}", f"--config.data.tokenizer={BUCKET}"],
            "config.data.tokenizer",
        ),
        ("glscl_jax.evaluate", ["compare", "{}", BUCKET], "RUN_B"),
        ("glscl_jax.input_pipeline.prepare", [f"--source={BUCKET}", "--check"], "--source"),
        ("glscl_jax.input_pipeline.prepare", ["--source=.", f"--videos={BUCKET}"], "--videos"),
        ("glscl_jax.input_pipeline.rendered", ["--out", BUCKET], "--out"),
        ("convert.clip", [BUCKET, "{}"], "SOURCE"),
        ("convert.glscl", ["{}", BUCKET], "OUT"),
        ("convert.clip", ["a.pt", "{}", f"--tokenizer={BUCKET}"], "--tokenizer"),
    ],
)
def test_a_bucket_is_refused_where_none_can_be_before_anything_is_made(
    refusal, tmp_path, program, flags, named
):
    given = [flag.format(tmp_path / "new") for flag in flags]
    assert f"{named} gs://bucket/there: gs:// is not supported here" in refusal(program, *given)
    assert not list(tmp_path.iterdir())
    assert not pathlib.Path("gs:").exists()


without_gcsfs = pytest.mark.skipif(
    importlib.util.find_spec("gcsfs") is not None, reason="gcsfs is installed: it would ask Google"
)


@without_gcsfs
@pytest.mark.parametrize(
    ("program", "flags", "named"),
    [
        ("glscl_jax.train", [CONFIG, f"--workdir={BUCKET}"], "--workdir"),
        (
            "glscl_jax.train",
            [CONFIG, "--workdir={}", f"--config.init_from={BUCKET}"],
            "config.init_from",
        ),
        (
            "glscl_jax.train",
            [CONFIG, "--workdir={}", f"--config.data.dir={BUCKET}"],
            "the prepared data",
        ),
        ("glscl_jax.evaluate", [f"--checkpoint={BUCKET}"], "--checkpoint"),
        ("glscl_jax.evaluate", [f"--checkpoint={BUCKET}", "--out={}"], "the checkpoint"),
        ("glscl_jax.evaluate", ["--checkpoint={}", f"--out={BUCKET}"], "--out"),
        ("glscl_jax.evaluate", ["--checkpoint={}", f"--save-features={BUCKET}"], "--save_features"),
        ("glscl_jax.input_pipeline.prepare", ["--source=.", f"--data_dir={BUCKET}"], "--data_dir"),
    ],
)
def test_a_client_that_is_missing_is_told_before_anything_is_made(
    refusal, tmp_path, program, flags, named
):
    given = [flag.format(tmp_path / "new") for flag in flags]
    told = f"{named} gs://bucket/there: Google Cloud Storage needs gcsfs, which is not installed"
    assert f"{told}: pip install gcsfs, or mount it (gcsfuse)" in refusal(program, *given)
    assert not list(tmp_path.iterdir())
    assert not pathlib.Path("gs:").exists()


def test_the_library_refuses_a_bucket():
    for read in (Workdir, read_tokenizer):
        with pytest.raises(UserError, match="not supported here"):
            read(BUCKET)


@without_gcsfs
def test_the_library_tells_of_a_client_that_is_missing():
    for read in (glscl_jax.load, open_data):
        with pytest.raises(UserError, match="pip install gcsfs"):
            read(BUCKET)


def test_addresses_of_buckets_stay_as_they_are():
    places = {"dir": BUCKET, "tokenizer": "demo"}
    config = ConfigDict({"init_from": "S3://b/x", "data": places})
    paths.expand(config)
    assert config.to_dict() == {"init_from": "S3://b/x", "data": places}
    assert not any(map(paths.is_address, ("gs:/b", "hdfs://b/x", "a/gs://b", "", "s3")))


@pytest.mark.slow
def test_programs_are_at_home(forks, shapes, tmp_path):
    home = {"HOME": str(tmp_path)}
    (tmp_path / "data").symlink_to(shapes / "data")
    (tmp_path / "own.py").write_text("from configs.demo import get_config\n")
    forks.together(
        (
            "glscl_jax.train",
            "--config=~/own.py:tiny",
            "--workdir=~/runs/one",
            "--config.data.dir=~/data",
            "--config.data.validation_split=",
            "--config.num_steps=4",
        ),
        environments=[home],
    )
    forks.together(
        ("glscl_jax.evaluate", "--checkpoint", "~/runs/one", "--out=~/out", "--noreport"),
        environments=[home],
    )
    assert (tmp_path / "out" / "results.json").is_file()
    assert {x.name for x in tmp_path.iterdir()} == {"data", "own.py", "runs", "out"}
