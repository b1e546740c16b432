"""What the benchmarks share: settings in child processes, interleaved timing, the machine, records and tables."""
