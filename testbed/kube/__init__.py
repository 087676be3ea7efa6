"""A real Kubernetes control plane on loopback, without containers: built from source once, started in seconds."""
