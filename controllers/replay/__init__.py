"""Policies of others beside ours, run through one simulator on recorded demand."""
