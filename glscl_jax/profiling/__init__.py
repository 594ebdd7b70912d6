"""How well it runs: FLOPs, peaks, utilisation, memory, traces, compiled programs."""
