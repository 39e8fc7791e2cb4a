"""`guardrail demo`: everything in one process, nothing to configure, this machine only."""

import contextlib
import os
import signal
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click
import uvicorn
from starlette.types import ASGIApp

from guardrail import logs
from guardrail.app import create_app, load_guard
from guardrail.config import Settings
from guardrail.demo.chat import COUNTRY_HEADER, Recent, chat_routes
from guardrail.demo.chatbot import create_chatbot
from guardrail.errors import ConfigError

HOST = "127.0.0.1"
PORT = 8080
# Numbers somebody can recognise; the page lets one choose another.
_COUNTRY = "US"


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), metavar="N", help=f"Port of the pages ({PORT}, or a free one).")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Keep the record here; otherwise it is removed at the end.",
)
@click.option("--browser/--no-browser", default=True, help="Open the chat page in a browser.")
def demo(port: int | None, folder: Path | None, browser: bool) -> None:
    """Try it: a stand-in chatbot behind the guard, a chat page and the dashboard. Ctrl-C stops."""
    # A stop by signal ends like Ctrl-C: the temporary folder goes too.
    signal.signal(signal.SIGTERM, _interrupt)
    # The server ends by a signal only, and does not always raise it again.
    with contextlib.suppress(KeyboardInterrupt), _listen(port) as pages, _folder(folder) as place:
        _run(pages, place, browser)
    click.echo("Stopped.")


def demo_app(upstream: str, folder: Path) -> ASGIApp:
    """Proxy, chat page and dashboard in front of a chatbot, with the record in this folder."""
    recent = Recent()
    settings = Settings(
        upstream=upstream,
        audit=f"sqlite:///{folder / 'audit.db'}",
        country_header=COUNTRY_HEADER,
        trusted_proxies=(HOST, "::1"),
    )
    guard = load_guard()
    routes = chat_routes(recent, lambda: guard.knowledge, _COUNTRY)
    return create_app(settings, guard=guard, recorders=(recent,), routes=routes, open_dashboard=True)


def _run(pages: socket.socket, folder: Path, browser: bool) -> None:
    with (folder / "demo.log").open("wb") as log, _chatbot() as upstream:
        logs.configure(log)
        url = f"http://{HOST}:{pages.getsockname()[1]}"
        server = _server(demo_app(upstream, folder))
        click.echo(f"Chat       {url}/")
        click.echo(f"Dashboard  {url}/-/dashboard")
        click.echo(f"API        {url}/v1   (for any OpenAI client)")
        click.echo("The rules are not yet reviewed by a clinician. Ctrl-C stops.")
        if browser:
            webbrowser.open(f"{url}/")
        server.run(sockets=[pages])


@contextlib.contextmanager
def _chatbot() -> Iterator[str]:
    """The stand-in chatbot on a port of its own, in a thread; gives its URL."""
    with _listen(0) as listening:
        server = _server(create_chatbot())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="chatbot")
        thread.start()
        try:
            yield f"http://{HOST}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(5)


def _server(app: ASGIApp) -> uvicorn.Server:
    loop = "uvloop" if os.name == "posix" else "asyncio"
    options = {"http": "httptools", "ws": "none", "log_config": None, "access_log": False, "server_header": False}
    return uvicorn.Server(uvicorn.Config(app, loop=loop, timeout_graceful_shutdown=2, **options))  # type: ignore[arg-type]  # each is of its own type


def _listen(port: int | None) -> socket.socket:
    """A listening socket; without a port given, the usual one or, where that is taken, a free one."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        try:
            listening.bind((HOST, PORT if port is None else port))
        except OSError:
            if port is not None:
                raise
            listening.bind((HOST, 0))
    except OSError as error:
        listening.close()
        raise ConfigError(f"port {port} cannot be used: {error.strerror}; give another with --port") from None
    listening.listen(128)
    return listening


@contextlib.contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="guardrail-demo-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
