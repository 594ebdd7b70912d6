"""Paths as users give them: at home, and never a bucket taken for a folder."""

import pathlib

import pytest
from ml_collections import ConfigDict

import glscl_jax
from glscl_jax import paths
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.prepared_data import open_data
from glscl_jax.input_pipeline.tokenizer import Tokenizer

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
    with pytest.raises(UserError, match=r"--data_dir .* is not supported yet; .* mount it"):
        paths.local(given, "--data_dir")


@pytest.mark.parametrize(
    ("given", "way_out"),
    [
        ("gs://b/x", r"\(gcsfuse\)"),
        ("S3://b/x", r"\(s3fs; .*mount-s3\)"),
        ("az://b/x", "written: mount it, or copy"),
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
    paths.settle(config)
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
        paths.settle(config)
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
        paths.settle(config)
        assert (config.init_from, config.data.dir, config.data.tokenizer) == expected


@pytest.mark.parametrize(
    ("program", "flags", "named"),
    [
        ("glscl_jax.train", [CONFIG, f"--workdir={BUCKET}"], "--workdir"),
        ("glscl_jax.train", ["--workdir={}", f"{CONFIG[:9]}{BUCKET}"], "--config"),
        *(
            ("glscl_jax.train", [CONFIG, "--workdir={}", f"--config.{x}={BUCKET}"], f"config.{x}")
            for x in paths.SETTINGS
        ),
        ("glscl_jax.evaluate", [f"--checkpoint={BUCKET}"], "--checkpoint"),
        ("glscl_jax.evaluate", ["--checkpoint={}", f"--out={BUCKET}"], "--out"),
        ("glscl_jax.evaluate", ["--checkpoint={}", f"--save-features={BUCKET}"], "--save_features"),
        ("glscl_jax.evaluate", ["compare", "{}", BUCKET], "RUN_B"),
        ("glscl_jax.input_pipeline.prepare", [f"--source={BUCKET}", "--check"], "--source"),
        ("glscl_jax.input_pipeline.prepare", ["--source=.", f"--videos={BUCKET}"], "--videos"),
        ("glscl_jax.input_pipeline.prepare", ["--source=.", f"--data_dir={BUCKET}"], "--data_dir"),
        ("glscl_jax.input_pipeline.rendered", ["--out", BUCKET], "--out"),
        ("convert.clip", [BUCKET, "{}"], "SOURCE"),
        ("convert.glscl", ["{}", BUCKET], "OUT"),
        ("convert.clip", ["a.pt", "{}", f"--tokenizer={BUCKET}"], "--tokenizer"),
    ],
)
def test_every_program_refuses_a_bucket_before_it_makes_anything(
    refusal, tmp_path, program, flags, named
):
    given = [flag.format(tmp_path / "new") for flag in flags]
    assert f"{named} gs://bucket/there: gs:// is not supported yet" in refusal(program, *given)
    assert not list(tmp_path.iterdir())
    assert not pathlib.Path("gs:").exists()


def test_the_library_refuses_a_bucket():
    for read in (glscl_jax.load, Workdir, open_data, Tokenizer.open):
        with pytest.raises(UserError, match="not supported yet"):
            read(BUCKET)


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
