"""`tidewise promote`: from shadow to act, workload by workload, with proof."""
