"""Exporters: publish what happens as Prometheus metrics. One file an exporter."""

from exporters import lean

lean.load()
