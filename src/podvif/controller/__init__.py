"""`podvif controller`: pods, their PodVifs and their Neutron ports, brought to agree."""
