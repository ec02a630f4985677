"""`python -m podvif`."""

from podvif.cli import main

main()
