"""Open vSwitch: the one adapter that knows os-vif, ovsdbapp and OVSDB's tables."""
