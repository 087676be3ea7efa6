"""Real parts on one machine without installing them: fetched, started and stopped for demo, tests and benchmarks."""
