"""What makes a score of a text and a video: a head is one object, one file."""
