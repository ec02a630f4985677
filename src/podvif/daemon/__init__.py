"""What the node daemon and the controller have alike: log lines, pages, metric families, their end."""
