"""The host: files, sockets and namespaces of this machine."""
