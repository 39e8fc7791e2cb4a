"""`guardrail serve`: the proxy in front of a model."""

import os
import tempfile
from pathlib import Path
from socket import socket
from typing import Any

import click
import uvicorn
from uvicorn.supervisors import Multiprocess

from guardrail import app, config, logs, metrics
from guardrail.board import VARIABLE, Board
from guardrail.config import CONFIG_VARIABLE, PREFIX, Settings
from guardrail.monitoring import read_keys


@click.command()
@click.option("--upstream", metavar="URL", help="The model's API.")
@click.option("--host", metavar="H", help="Address to listen on (127.0.0.1).")
@click.option("--port", type=int, metavar="N", help="Port to listen on (8080).")
@click.option("--audit", metavar="URL", help="Where exchanges are recorded: sqlite:///path or postgresql://...")
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="Settings in YAML.")
@click.option("--rules", type=click.Path(path_type=Path), metavar="FOLDER", help="Rule packs in place of the shipped ones.")
@click.option("--overrides", type=click.Path(path_type=Path), metavar="FOLDER", help="What the site changes in the packs.")
@click.option("--country", metavar="XX", help="Country of the patients, for phone numbers.")
@click.option("--workers", type=int, metavar="N", help="Processes (1).")
@click.option("--help-settings", is_flag=True, help="List every setting with its meaning.")
def serve(config_file: Path | None, help_settings: bool, **flags: Any) -> None:
    """Serve the proxy. Settings come from these flags, GUARDRAIL_* variables and the file, in this order."""
    if help_settings:
        click.echo(config.help_table())
        return
    run(config.load(flags, config_file), flags, config_file)


def run(settings: Settings, flags: dict[str, Any], config_file: Path | None) -> None:
    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "http": "httptools",
        "loop": "uvloop" if os.name == "posix" else "asyncio",
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,  # who may speak for a client's address is decided in proxy.trust
        "timeout_graceful_shutdown": settings.shutdown_seconds,
    }
    logs.configure()
    if settings.workers == 1:
        board = Board()
        board.heed_hangup()
        uvicorn.run(app.create_app(settings, board=board), **options)
        return
    # Workers are new processes: they read the same settings again, with the flags put into the environment. What is wrong with
    # settings or packs is said here, once; nothing is opened that a worker has to open for itself.
    app.create_service(settings)
    read_keys(settings)
    os.environ.update({PREFIX + name.upper(): str(value) for name, value in flags.items() if value is not None})
    if config_file:
        os.environ[CONFIG_VARIABLE] = str(config_file)
    with tempfile.TemporaryDirectory(prefix="guardrail-") as folder:
        os.environ[VARIABLE] = folder
        # Metrics of all workers are added up, by any of them.
        os.environ.setdefault(metrics.MULTIPROCESS, folder)
        server = uvicorn.Config("guardrail.app:from_environment", factory=True, workers=settings.workers, **options)
        _Supervisor(server, [server.bind_socket()], Board(Path(folder))).run()


class _Supervisor(Multiprocess):
    """Starts the workers, and others in place of those that die."""

    def __init__(self, server: uvicorn.Config, sockets: list[socket], board: Board) -> None:
        super().__init__(server, sockets)
        self._board = board

    def handle_hup(self) -> None:
        """Packs are loaded again by the workers that run; uvicorn would start others in their place."""
        self._board.ask_reload()

    def terminate_all(self) -> None:
        """While the workers finish what is open, callers are refused at once; with our socket open they would wait for nobody."""
        for listening in self.sockets:
            listening.close()
        super().terminate_all()
