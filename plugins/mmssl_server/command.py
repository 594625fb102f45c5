"""mmssl serve"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from pathlib import Path

import click

NAMES = ("localhost", "127.0.0.1", "::1")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--index", "index_dir", type=click.Path(path_type=Path), help="The index.  [default: RUN/index]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--allow-host", "allowed", multiple=True, metavar="NAME",
              help="Name it is called by, as by a proxy.  [default: localhost; elsewhere any]")  # fmt: skip
@click.option("--root-path", default="", help="Path that a proxy leaves out, e.g. /find.")
@click.option("--token-file", type=click.Path(path_type=Path, dir_okay=False),
              help="File with the token of who may change the index; else MMSSL_TOKEN.  [default: nobody]")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), help="Threads of torch and FAISS.  [default: theirs]")
@click.option("--batch", default=32, show_default=True, type=click.IntRange(1), help="Queries answered together.")
@click.option("--wait", default=3.0, show_default=True, type=click.FloatRange(0, 1000),
              help="Milliseconds that a batch waits for queries on their way.")  # fmt: skip
@click.option("--queue", default=128, show_default=True, type=click.IntRange(1), help="Requests that may wait.")
@click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(0.1), help="Seconds a request.")
@click.option("--max-k", default=100, show_default=True, type=click.IntRange(1), help="Answers to a search.")
@click.option("--max-body", default=16, show_default=True, type=click.IntRange(1), help="MiB a request.")
@click.option("--max-pixels", default=50, show_default=True, type=click.IntRange(1), help="Millions of a picture.")
@click.option("--max-sound", default=600.0, show_default=True, type=click.FloatRange(0.1), help="Seconds of a sound.")
def serve(
    run: Path, index_dir: Path | None, host: str, port: int, allowed: tuple[str, ...], root_path: str,
    token_file: Path | None, threads: int | None, batch: int, wait: float, queue: int, timeout: float, max_k: int,
    max_body: int, max_pixels: int, max_sound: float,
) -> None:  # fmt: skip
    """Serve the index of a run over HTTP: search, items and metrics, described by /openapi.json.

    \b
    Example:
      mmssl serve runs/icons
      mmssl serve runs/icons --port 80 --host 0.0.0.0 --token-file token.txt
    """
    token = _token(token_file)
    with listen(host, port) as listening:
        address, port = listening.getsockname()[:2]
        is_local = ipaddress.ip_address(address).is_loopback
        if not is_local:
            click.echo(
                f"warning: {address} can be reached by other machines, and everybody there may search: "
                "put a proxy with TLS and a login in front of it",
                err=True,
            )

        import uvicorn

        from mmssl_server.app import create_app
        from mmssl_server.library import Library
        from mmssl_server.limits import Limits
        from multimodal_ssl import recipe

        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
        limits = Limits(
            body=max_body * 2**20, pixels=max_pixels * 1_000_000, sound=max_sound, k=max_k, queue=queue,
            timeout=timeout, batch=batch, wait=wait / 1000,
        )  # fmt: skip
        binder, folder = recipe.load(run), index_dir or run / "index"
        library = Library(binder, folder, name=run.absolute().name, patience=limits.filter)
        hosts = {one.lower() for one in (*NAMES, *allowed)} if is_local or allowed else None
        app = create_app(library, limits=limits, token=token, threads=threads, hosts=hosts)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, root_path=root_path.rstrip("/"), server_header=False,
            timeout_graceful_shutdown=int(timeout) + 1,
        )  # fmt: skip
        shown = f"[{address}]" if ":" in address else address
        counts = ", ".join(f"{count:,} {name}" for name, count in library.index.counts.items())
        click.echo(f"serving: {run} ({counts}) at http://{shown}:{port}\nstop:    Ctrl-C")
        uvicorn.Server(config).run(sockets=[listening])


def _token(file: Path | None) -> str | None:
    from multimodal_ssl.errors import InputError

    token = file.read_text().strip() if file else os.environ.get("MMSSL_TOKEN", "").strip()
    if not token and (file or "MMSSL_TOKEN" in os.environ):
        raise InputError(f"{file or 'MMSSL_TOKEN'} is empty: write a token into it, such as 32 random letters")
    return token or None


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    # Without the protocol asyncio leaves Nagle's algorithm on, and an answer waits 40 ms for the client's ACK.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(1024)
    except OSError:
        listening.close()
        raise
    return listening
