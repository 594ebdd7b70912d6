"""When concepts differ, and when they help: variants of GLSCL's LIM on the demo, five seeds."""
