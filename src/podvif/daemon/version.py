"""Which podvif this is."""

import importlib.metadata


def version() -> str:
    """Of this podvif; empty where it runs without having been installed."""
    try:
        return importlib.metadata.version("podvif")
    except importlib.metadata.PackageNotFoundError:
        return ""
