"""`podvif node`."""

import click


@click.command()
@click.option(
    "--config-file",
    "files",
    multiple=True,
    type=click.Path(dir_okay=False),
    help="kuryr.conf; repeatable, a later file wins. Without any the defaults hold.",
)
def node(files: tuple[str, ...]) -> None:
    """Serve the CNI plugin on this node until SIGTERM."""
    from podvif.node import main  # noqa: PLC0415  half a second of imports that only the daemon needs

    main.run(files)
