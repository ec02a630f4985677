"""IPAM: any CNI plugin that gives addresses."""
