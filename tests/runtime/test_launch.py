"""What processes of a run compare before they begin together."""

import shutil

from glscl_jax.runtime import launch


def test_the_digest_is_of_all_of_the_library_s_code(tmp_path, monkeypatch):
    before = launch._code()
    copy = tmp_path / "glscl_jax"
    shutil.copytree(launch.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(launch, "PACKAGE", copy)
    assert launch._code() == before
    for name in ("train.py", "models/heads/gim.py", "runtime/launch.py"):
        text = (copy / name).read_text(encoding="utf-8")
        (copy / name).write_text(f"{text}# another\n", encoding="utf-8")
        assert launch._code() != before
        (copy / name).write_text(text, encoding="utf-8")
