"""Commands that make a cluster of hosts: the job service, and the workers of each host."""

from __future__ import annotations

from typing import Annotated

import typer

from beam_pipelines.commands.options import Debug
from beam_pipelines.console import terminal


def serve(
    address: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Where it listens, as commands and workers reach this machine."),
    ],
    workers: Annotated[
        str, typer.Option(metavar="HOST:PORT,…", help="The addresses of the hosts' [bold]broetchen cluster worker[/].")
    ],
    debug: Debug = False,
) -> None:
    """Serve jobs of Beam's portable runner, each on the workers of several hosts, until Ctrl-C.

    Whoever reaches the address can run any code on all hosts: use it in networks that you trust alone, and see
    docs/security.md.

    Example: [bold]broetchen cluster serve --address 10.0.0.1:8099 --workers 10.0.0.2:8100,10.0.0.3:8100[/], then
    [bold]broetchen build mix.yaml --output gs://bucket/mix --runner=PortableRunner --job_endpoint=10.0.0.1:8099[/].
    """
    terminal.start(debug=debug)
    from beam_pipelines.cluster.addresses import check_address, check_addresses

    own, hosts = check_address("--address", address), check_addresses("--workers", workers)
    from beam_pipelines.cluster.service import serve_jobs

    serve_jobs(own, hosts)


def worker(
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where it listens, as the job service reaches this machine.")
    ],
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many worker processes a job takes here; by default one a processor, as far as memory goes.",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Start worker processes on this host for the jobs of a job service, until Ctrl-C.

    Whoever reaches the address can run any code here: use it in networks that you trust alone, and see
    docs/security.md.

    Example: [bold]broetchen cluster worker --address 10.0.0.2:8100[/].
    """
    terminal.start(debug=debug)
    from beam_pipelines.cluster.addresses import check_address

    own = check_address("--address", address)
    from beam_pipelines.cluster.pool import default_processes, run_pool

    run_pool(own, processes or default_processes())
