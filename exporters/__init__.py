"""Exporters: publish what happens as Prometheus metrics. One file an exporter."""
