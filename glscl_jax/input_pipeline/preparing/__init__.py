"""From annotations and videos to a data set: checked, decoded, kept, written."""
