"""The dashboard in a browser on this host: a page, and behind each of its sockets a dashboard of its own.

Whatever a browser has open may speak to this host's ports, and so may every user of it. So nobody is answered
but who knows a token that is made anew each time and says where he comes from; what is begun is read-only,
with arguments that no browser has a say in; and it ends with its socket, or with the server.

Of textual-serve it has the page's terminal and its way of speaking. The server is another one, for that one
has no token, starts a shell, and names another host in its page. Knows no Textual.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import os
import re
import secrets
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import orjson
import textual_serve
from aiohttp import ClientError, WSMsgType, web

from duraq.cli.failing import Code, CommandError
from duraq.safe_text import safe_lines, safe_text

log = logging.getLogger("duraq.dashboard")

DEFAULT_PORT = 8000
SESSIONS = 4  # at once; each is a process
LARGEST_MESSAGE = 64 * 1024  # bytes from a browser: a paste into the filter
LARGEST_SIZE = (500, 200)  # columns and lines
FRAMES = 20  # a second at most, where one moves about
FONT = 16  # pixels
PATIENCE = 3.0  # seconds that a dashboard has for its end
ALIVE = 15.0  # seconds; a browser that does not answer for so long is gone
_TAIL = 8 * 1024  # bytes that are kept of what a dashboard says at its end

# What a dashboard needs to know of its surroundings: where its user's files are, how times and texts are
# written, and where Python finds its modules.
_KEPT = re.compile(
    r"HOME|LANG|LANGUAGE|LC_\w+|TZ|TZDIR|XDG_(CONFIG|STATE)_HOME|NO_COLOR|PYTHON(PATH|HOME)|LD_LIBRARY_PATH"
)
_PAGE = Path(__file__).parent / "page"
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "clipboard-read=()",
    "Referrer-Policy": "no-referrer",
    "Server": "duraq",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# Nothing comes from elsewhere or goes there, and what looks like a link on the screen opens no window
# (sandbox). The terminal would make a style sheet as it goes; the page has that one as a file.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; "
    "connect-src 'self' ws://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "sandbox allow-scripts allow-same-origin"
)


@dataclass(frozen=True)
class Address:
    """Where it listens: of this host, for this host."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT

    @classmethod
    def parse(cls, text: str) -> Address:
        """``HOST:PORT``, ``HOST`` or ``PORT``. Raises CommandError for what others could reach."""
        if text.isdecimal():
            text = f":{text}"
        found = re.fullmatch(r"(\[[0-9a-fA-F:.]*\]|[^\[\]:]*)(?::([0-9]{1,5}))?", text, re.ASCII)
        if found is None or int(found[2] or 0) > 0xFFFF:
            raise CommandError(Code.USAGE, f"{text!r} is not an address such as 127.0.0.1:8000")
        host = found[1].strip("[]") or cls.host
        port = cls.port if found[2] is None else int(found[2])
        try:
            is_ours = ipaddress.ip_address(cls.host if host == "localhost" else host).is_loopback
        except ValueError:
            is_ours = False
        if not is_ours:
            raise CommandError(
                Code.USAGE,
                f"{host!r} is not an address that only this host can reach, such as 127.0.0.1",
                f"from elsewhere: ssh -L {port}:127.0.0.1:{port} HOST, and then the same address there",
            )
        return cls(cls.host if host == "localhost" else host, port)

    @property
    def name(self) -> str:
        """The host as it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host


@dataclass(frozen=True)
class Gate:
    """Who is let in: who knows the token, and was sent by nobody else."""

    token: str
    names: frozenset[str]

    @classmethod
    def of(cls, address: Address) -> Gate:
        """With a token that nobody knows yet."""
        return cls(secrets.token_urlsafe(24), frozenset({address.name, "127.0.0.1", "localhost", "[::1]"}))

    def asked_for(self, request: web.BaseRequest) -> str | None:
        """What is asked for, behind the token; None: the request is not one that is answered."""
        given, slash, name = request.path.removeprefix("/").partition("/")
        knows = hmac.compare_digest(given.encode("utf-8", "backslashreplace"), self.token.encode())
        return name if knows and slash and request.method == "GET" and self._means_us(request) else None

    def _means_us(self, request: web.BaseRequest) -> bool:
        # A page of another host that has had its name lead here (DNS rebinding) says that name. The port may
        # be another than ours, at the other end of an ssh tunnel.
        hosts = request.headers.getall("Host", [])
        return len(hosts) == 1 and re.sub(r":[0-9]{1,5}\Z", "", hosts[0], flags=re.ASCII) in self.names

    @staticmethod
    def comes_from_us(request: web.BaseRequest) -> bool:
        """Whether a page of ours opens this socket: browsers say whose it is, and let every page open one."""
        return request.headers.getall("Origin", []) == [f"http://{request.headers['Host']}"]


class Files:
    """What the page is made of, in memory."""

    def __init__(self) -> None:
        static = Path(textual_serve.__file__ or "").parent / "static"
        self._index = Template((_PAGE / "index.html").read_text("utf-8"))
        self._files = {
            "page.css": (_PAGE / "page.css", "text/css"),
            "page.js": (_PAGE / "page.js", "text/javascript"),
            "xterm.css": (static / "css" / "xterm.css", "text/css"),
            "textual.js": (static / "js" / "textual.js", "text/javascript"),
            "mono.ttf": (static / "fonts" / "RobotoMono-VariableFont_wght.ttf", "font/ttf"),
        }
        self._bytes = {name: path.read_bytes() for name, (path, _) in self._files.items()}

    def index(self, socket: str) -> str:
        """The page, for a socket of that URL."""
        return self._index.substitute(socket=socket, sessions=SESSIONS, font=FONT)

    def get(self, name: str) -> tuple[bytes, str] | None:
        """One of its parts, and what it is."""
        return (self._bytes[name], self._files[name][1]) if name in self._files else None


class Server:
    """Answers who is let in: with the page, its parts, and a dashboard for each socket."""

    def __init__(self, gate: Gate, command: Sequence[str]) -> None:
        self._gate = gate
        self._command = command
        self._files = Files()
        self._open: set[web.WebSocketResponse] = set()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Every request comes here."""
        name = self._gate.asked_for(request)
        if name == "":
            host = request.headers["Host"]
            page = self._files.index(f"ws://{host}/{self._gate.token}/socket")
            headers = _HEADERS | {"Content-Security-Policy": _POLICY.format(host=host)}
            return web.Response(text=page, content_type="text/html", headers=headers)
        if name == "socket" and self._gate.comes_from_us(request):
            return await self._socket(request)
        found = None if name is None else self._files.get(name)
        if found is None:
            return web.Response(status=404, headers=_HEADERS)
        return web.Response(body=found[0], content_type=found[1], headers=_HEADERS)

    async def close(self) -> None:
        """End every dashboard."""
        await asyncio.gather(*(socket.close() for socket in self._open if socket.prepared))

    async def _socket(self, request: web.BaseRequest) -> web.StreamResponse:
        socket = web.WebSocketResponse(timeout=PATIENCE, heartbeat=ALIVE, max_msg_size=LARGEST_MESSAGE)
        if not socket.can_prepare(request) or len(self._open) >= SESSIONS:
            return web.Response(status=503, headers=_HEADERS)
        socket.headers.update(_HEADERS)
        self._open.add(socket)
        try:
            await socket.prepare(request)
            size = _size(request.query.get("width"), request.query.get("height"))
            await Session(socket).run(self._command, surroundings(os.environ, size))
        except OSError as error:
            log.error("a dashboard cannot be begun: %s", error)
        finally:
            self._open.discard(socket)
            if socket.prepared:
                await socket.close()
        return socket


class Session:
    """A dashboard in a process of its own, and the socket that it is seen through."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def run(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Begin it, and see that it is over when this is."""
        process = await asyncio.create_subprocess_exec(
            # Ctrl-C is for the server alone.
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=environment,
            start_new_session=True,
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._show(process))
                said = tasks.create_task(_tail(process))
                await self._tell(process)
                await self._end(process)
        finally:
            # Whatever went wrong.
            if process.returncode is None:
                process.kill()
                # Until it is known to be over it is in the books of the loop, which may end first.
                await process.wait()
        if process.returncode:
            log.error("a dashboard ended with %d: %s", process.returncode, safe_lines(said.result()))

    async def _show(self, process: Process) -> None:
        """Hand on what it draws; what else it says is meant for another server."""
        assert process.stdout is not None
        with contextlib.suppress(asyncio.IncompleteReadError):
            await process.stdout.readuntil(b"__GANGLION__\n")
            while True:
                head = await process.stdout.readexactly(5)
                packet = await process.stdout.readexactly(int.from_bytes(head[1:], "big"))
                if head[:1] == b"D" and not self._socket.closed:
                    # It must be read on all the same, or it could not end.
                    with contextlib.suppress(ClientError, ConnectionError):
                        await self._socket.send_bytes(packet)
        await self._socket.close()

    async def _tell(self, process: Process) -> None:
        """Hand on what the browser says, until one of them is gone."""
        assert process.stdin is not None
        async for message in self._socket:
            try:
                if message.type is not WSMsgType.TEXT:
                    raise ValueError("not text")  # noqa: TRY301
                process.stdin.write(packet_of(message.data))
                await process.stdin.drain()
            except ValueError as error:
                log.warning("a browser said what is not understood: %s", safe_text(error, 200))
                return
            except ConnectionError:
                return

    @staticmethod
    async def _end(process: Process) -> None:
        """Without input it ends by itself."""
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(PATIENCE):
                await process.wait()
        except TimeoutError:
            process.kill()


def packet_of(said: str) -> bytes:
    """What a page says, as a dashboard reads it. Raises ValueError if it is nothing that a page says."""
    match orjson.loads(said):
        case ["stdin", str(keys)]:
            return _packet(b"D", keys.encode())
        case ["resize", {"width": int(width), "height": int(height)}]:
            columns, lines = _size(width, height)
            return _packet(b"M", orjson.dumps({"type": "resize", "width": columns, "height": lines}))
        case ["focus" | "blur" as kind]:
            return _packet(b"M", orjson.dumps({"type": kind}))
        case ["ping", _]:
            return b""
    raise ValueError(f"neither keys nor a size: {said[:80]}")


def _packet(kind: bytes, data: bytes) -> bytes:
    return kind + len(data).to_bytes(4, "big") + data


def _size(width: str | int | None, height: str | int | None) -> tuple[int, int]:
    """Columns and lines that a screen may have; those of a terminal if none are said."""

    def within(said: str | int | None, usual: int, largest: int) -> int:
        is_number = isinstance(said, int) or (said is not None and re.fullmatch(r"[0-9]{1,6}", said))
        return min(max(int(said), 1), largest) if said is not None and is_number else usual

    return within(width, 80, LARGEST_SIZE[0]), within(height, 24, LARGEST_SIZE[1])


def surroundings(own: Mapping[str, str], size: tuple[int, int]) -> dict[str, str]:
    """The environment of a dashboard: what it needs of ours, and how it is to draw."""
    kept = {name: value for name, value in own.items() if _KEPT.fullmatch(name)}
    return kept | {
        "TEXTUAL_DRIVER": "duraq_dashboard.served:ServedDriver",
        "TEXTUAL_COLOR_SYSTEM": "truecolor",
        "TEXTUAL_FPS": str(FRAMES),
        "COLUMNS": str(size[0]),
        "ROWS": str(size[1]),
    }


async def _tail(process: Process) -> str:
    """The last of what it says to nobody in particular: why it ended, if it broke."""
    assert process.stderr is not None
    kept = b""
    while more := await process.stderr.read(_TAIL):
        kept = (kept + more)[-_TAIL:]
    return kept.decode("utf-8", "backslashreplace")


def serve(address: Address, arguments: Sequence[str], announce: Callable[[str], None]) -> Code:
    """Serve dashboards, begun with these arguments, until SIGINT or SIGTERM; ``announce`` is told the URL."""
    # -P: nothing is imported from where this was begun.
    command = [sys.executable, "-P", "-m", "duraq_dashboard", "--served", "--read-only", *arguments]
    gate = Gate.of(address)
    number = asyncio.run(_serve(address, gate, Server(gate, command), announce))
    return Code.TERMINATED if number == signal.SIGTERM else Code.INTERRUPTED


async def _serve(address: Address, gate: Gate, server: Server, announce: Callable[[str], None]) -> int:
    loop = asyncio.get_running_loop()
    over: asyncio.Future[int] = loop.create_future()

    def end(number: int) -> None:
        if not over.done():
            over.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)
    runner = web.ServerRunner(
        web.Server(server.answer, access_log=None, logger=log), shutdown_timeout=PATIENCE
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, address.host, address.port)
        try:
            await site.start()
        except OSError as error:
            said = f"{address.name}:{address.port} cannot be listened at: {os.strerror(error.errno or 0)}"
            raise CommandError(Code.CONFLICT, said, "--serve 0 takes any port that is free") from error
        announce(f"http://{address.name}:{runner.addresses[0][1]}/{gate.token}/")
        return await over
    finally:
        await server.close()
        await runner.cleanup()
