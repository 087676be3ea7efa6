"""`tidewise bottleneck`: what holds one workload back, and what to change."""
