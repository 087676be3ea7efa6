"""What `make demo` runs: a real trace as jobs on a real queue, real workers, and Tidewise scaling them in time."""
