"""The chassis of every process: configuration, HTTP endpoint, logs.

The only part of exporters that controllers import.
"""
