"""Reads: what the controllers learn from Prometheus and, later, from clusters and clouds."""
