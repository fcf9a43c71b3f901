"""Commands that make a cluster of hosts: the job service, and the workers of each host."""

from __future__ import annotations

from typing import Annotated

import typer

from beam_pipelines.commands.options import Debug, Json, OutputFile, Quiet
from beam_pipelines.commands.results import give, next_command
from beam_pipelines.console import terminal
from beam_pipelines.console.layout import print_json
from transforms.errors import listed


def serve(
    address: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Where it listens, as commands and workers reach this machine."),
    ],
    workers: Annotated[
        str, typer.Option(metavar="HOST:PORT,…", help="The addresses of the hosts' [bold]broetchen cluster worker[/].")
    ],
    as_json: Json = False,
    output: OutputFile = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Serve jobs of Beam's portable runner, each on the workers of several hosts, until Ctrl-C.

    Anybody who reaches the address can run any code on all hosts: use it in networks that you trust alone, and see
    docs/security.md.

    Example: [bold]broetchen cluster serve --address 10.0.0.1:8099 --workers 10.0.0.2:8100,10.0.0.3:8100[/], then
    [bold]broetchen build mix.yaml --output gs://bucket/mix --runner=PortableRunner --job_endpoint=10.0.0.1:8099[/].
    """
    terminal.start(debug=debug, quiet=quiet, hints=not as_json)
    from beam_pipelines.cluster.addresses import check_address, check_addresses

    own, hosts = check_address("--address", address), check_addresses("--workers", workers)
    from beam_pipelines.cluster.service import serve_jobs

    def ready() -> None:
        _tell({"address": own, "workers": list(hosts)}, as_json=as_json, output=output)
        endpoint = f"--job_endpoint={own}"
        next_command("build", "CONFIG", "--output", "URI", "--runner=PortableRunner", endpoint)

    serve_jobs(own, hosts, ready)


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
    as_json: Json = False,
    output: OutputFile = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Start worker processes on this host for the jobs of a job service, until Ctrl-C.

    Anybody who reaches the address can run any code here: use it in networks that you trust alone, and see
    docs/security.md.

    Example: [bold]broetchen cluster worker --address 10.0.0.2:8100[/].
    """
    terminal.start(debug=debug, quiet=quiet, hints=not as_json)
    from beam_pipelines.cluster.addresses import check_address

    own = check_address("--address", address)
    from beam_pipelines.cluster.pool import default_processes, run_pool

    count = processes or default_processes()

    def ready() -> None:
        _tell({"address": own, "processes": count}, as_json=as_json, output=output)
        next_command("cluster", "serve", "--address", "HOST:PORT", "--workers", own)

    run_pool(own, count, ready)


def _tell(started: dict[str, object], *, as_json: bool, output: str | None) -> None:
    """Tells the addresses that listen, once they do; people read it in the log, so that the table is one line."""
    line = ", ".join(
        f"{name}: {listed(value) if isinstance(value, list) else value}" for name, value in started.items()
    )
    give(lambda console: print_json(console, started) if as_json else terminal.print_as_is(console, line), output)
