"""A private OVS-DPDK, sandboxes, the daemon, the real shim and testpmd: what the demo, the node tests and the benches stand on.

Law: every part is a context manager that leaves nothing behind, whatever happens inside it, and drives podvif from outside,
by its programs and files.  Standard library only and synchronous, so that a test may use it from a fixture or a thread.
"""
