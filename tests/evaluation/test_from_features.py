"""A head is ranked by features that were made as those that it trained on."""

import types

import pytest

from glscl_jax.errors import UserError
from glscl_jax.evaluation import from_features
from glscl_jax.files import write_json
from glscl_jax.retrieval.feature_identity import CHECKSUM

THEIRS = {"encoder": "theirs", "layer": 3}
OURS = {"checkpoint": "01" * 32, "dtype": "float32", "tokenizer": "ab", "frame_rate": 1.0}


@pytest.mark.parametrize(
    ("trained", "given", "told"),
    [
        (THEIRS, THEIRS, ""),
        ({**THEIRS, CHECKSUM: "0123"}, {**THEIRS, "split": "test", "videos": 9}, ""),
        ({"encoder": "theirs"}, {"encoder": "theirs"}, ""),
        (THEIRS, {**THEIRS, "encoder": "other"}, "they are of other, the head in"),
        (THEIRS, {**THEIRS, "layer": 12}, "layer 3, now 12"),
        (THEIRS, {"encoder": "theirs"}, "layer 3, now None"),
        ({"encoder": "theirs"}, THEIRS, "layer None, now 3"),
        ({**OURS, "dataset": "msvd"}, {**OURS, "dataset": "lsmdc", "eval_batch_size": 8}, ""),
        (OURS, {**OURS, "frame_rate": 3.0}, "frame_rate 1.0, now 3.0"),
        (None, {"checkpoint": "of the run"}, ""),
        (None, THEIRS, "they are of theirs, the head in"),
    ],
)
def test_features_that_were_made_otherwise_are_refused(tmp_path, trained, given, told):
    data = {"frame_rate": 1.0, "splits": {}} if trained is None else {"train": trained}
    write_json(tmp_path / "data.json", data)
    kept, loaded = types.SimpleNamespace(identity=given), types.SimpleNamespace(directory=tmp_path)
    if not told:
        from_features._check_owner("--features DIR, test", kept, loaded, "of the run")
        return
    with pytest.raises(UserError) as refused:
        from_features._check_owner("--features DIR, test", kept, loaded, "of the run")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
