"""podvif gives Kubernetes pods vhost-user ports of Open vSwitch with DPDK."""
