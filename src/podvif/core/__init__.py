"""What podvif decides: pure functions over frozen values, without await, file, socket or clock."""
