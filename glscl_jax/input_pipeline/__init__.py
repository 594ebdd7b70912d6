"""From video files to batches: the only place that imports TensorFlow."""

import os

# Before TensorFlow is imported: it greets every program with what it was compiled for. What it
# has to say of errors comes as exceptions.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
