"""What a program runs on: devices and their mesh, processes, flags, streams, locks, preemption."""
