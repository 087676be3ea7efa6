"""Controllers: read Prometheus, think, write to the world."""
