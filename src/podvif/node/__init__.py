"""The node daemon: composes the adapters, serves the CNI plugin."""
