"""Kubelet, as it speaks to a CSI driver: gRPC over unix sockets."""
