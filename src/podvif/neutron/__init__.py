"""OpenStack's networking service: ports, and the facts of subnets and networks."""
