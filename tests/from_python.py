"""Prepares, trains and evaluates from Python, as a notebook does, without a flag that is parsed.

    python -m tests.from_python SOURCE OUT

Its last line says as JSON what the functions returned.
"""

import dataclasses
import json
import pathlib
import sys

from absl import flags

from configs import demo
from glscl_jax.evaluate import evaluate
from glscl_jax.input_pipeline.prepare import prepare_source
from glscl_jax.train import train


def main(source: str, out: pathlib.Path) -> dict:
    """What each returned; OUT gets data, run and val."""
    report = prepare_source(source, out / "data", frame_rate=2.0, image_size=32)
    config = demo.get_config("tiny")
    config.data.dir, config.num_steps, config.batch_size = str(out / "data"), 4, 8
    before = config.to_dict()
    status = [train(config, out / "run"), train(config, str(out / "run"))]
    card = evaluate(out / "run", config=config, split="val", out=out / "val", report=False, top_k=2)
    # Without a config, the run's own.
    other = evaluate(out / "run", out="~/other", rerank="dual_softmax", examples=1)
    return {
        "report": dataclasses.asdict(report),
        "status": status,
        "card": card,
        "other": other,
        "config untouched": config.to_dict() == before,
        "flags parsed": flags.FLAGS.is_parsed(),
    }


if __name__ == "__main__":
    returned = main(sys.argv[1], pathlib.Path(sys.argv[2]))
    print(json.dumps(returned))
