"""How Tidewise is brought to machines: the chart, the manifests rendered from it, compose, images."""
