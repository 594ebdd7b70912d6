"""From video files to batches: the only place that imports TensorFlow."""
