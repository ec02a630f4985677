"""Kubernetes' API server: requests, a cache that follows it, and the election of a leader, over lightkube."""
