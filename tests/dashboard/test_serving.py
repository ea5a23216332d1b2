"""The dashboard in a browser: who is let in, that nothing can be changed, and that nothing is left over."""

import asyncio
import contextlib
import hashlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pyte
import pytest
from aiohttp import web
from click.testing import CliRunner
from duraq_dashboard import serving
from duraq_dashboard.options import Options
from duraq_dashboard.serving import Address, Gate, Server, packet_of, surroundings
from in_browser import CHROMIUM, chromium
from on_screen import queue_now, queue_view, snapshot, text_of

from duraq import FileStorage, NoRetry, Queue
from duraq.actions import ACTIONS
from duraq.cli import cli
from duraq.cli.failing import Code, CommandError
from duraq.cli.options import Settings

pytestmark = pytest.mark.anyio
DEEP = os.environ.get("DURAQ_TEST_DEEP", "") not in {"", "0"}
PATIENCE = 30  # seconds, for what takes a moment
# Every key that changes something, and those that would begin a program.
KEYS = sorted({action.key for action in ACTIONS.values() if action.key} | set("ou"))
ESCAPE = "\x1b[27u"  # as terminals say it that leave no doubt where it ends
SCREENS = ("3 Errors", "5 Health", "6 Events") * DEEP + ("2 DLQ", "4 Leases")
# What a shell, a page or a terminal would each make something else of.
HOSTILE = "a $(touch pwned) `touch pwned`;' \"<b>&--root"
# Draws one line, says so, and then does with its input what the test says.
CHILD = "import os, sys; print('__GANGLION__', flush=True); {then}"
ECHO = "s = sys.stdin.buffer; o = sys.stdout.buffer\nwhile b := s.read1(): o.write(b); o.flush()"
SAY_PID = "\nd = b'%d' % os.getpid(); os.write(1, b'D' + len(d).to_bytes(4, 'big') + d)\n"
SMALL = CHILD.format(then="sys.stdin.read()")


@dataclass
class Served:
    """``duraq dash --serve`` in a process of its own."""

    process: subprocess.Popen
    url: str

    @property
    def token(self):
        return self.url.split("/")[3]

    @property
    def origin(self):
        return self.url.removesuffix(f"/{self.token}/")

    def children(self):
        """The processes that it has begun and that live."""
        return [
            int(pid)
            for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]


@contextlib.contextmanager
def served(root, *arguments, port=0, **environment):
    """Serve a storage at that port, or one that is free."""
    command = [sys.executable, "-m", "duraq", "-C", str(root), "dash", "--serve", str(port), *arguments]
    state = {"XDG_STATE_HOME": str(root.parent / "state"), "XDG_CONFIG_HOME": str(root.parent / "config")}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, **state, **environment}
    ) as process:
        try:
            yield Served(process, process.stderr.readline().strip())
        finally:
            process.terminate()


def fill(root):
    """A storage with something of everything that a screen offers to change."""
    with FileStorage(root) as storage:
        queue = Queue("emails", storage, retry_policy=NoRetry())
        queue.enqueue_many([{"to": "ann"}, {"to": "bob"}, {"to": "eve"}])
        queue.mark_failed(queue.dequeue(), "refused")
        Queue("reports", storage).enqueue(1)


def tree(root):
    """Every file below, with when it was written and what is in it."""
    return {
        str(path.relative_to(root)): (path.lstat().st_mtime_ns, path.is_file() and _digest(path))
        for path in sorted(root.rglob("*"))
    }


def _digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def arguments_of(pid):
    """What that process was begun with."""
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def gone(pid):
    """Wait until that process has ended."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], PATIENCE)[0])
    finally:
        os.close(process)


def drawn(data):
    """What a terminal that is large enough shows of that."""
    screen = pyte.Screen(*serving.LARGEST_SIZE)
    pyte.ByteStream(screen).feed(data)
    return "\n".join(screen.display)


class Browser:
    """The socket of a page, and a terminal that shows what comes through it."""

    def __init__(self, page, size=(120, 36)):
        self._page = page
        self._screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self._screen)

    async def until(self, text):
        """Look until that is on the screen."""
        end = time.monotonic() + PATIENCE
        while text not in (shown := "\n".join(self._screen.display)):
            message = await self._page.receive(PATIENCE)
            assert message.type is aiohttp.WSMsgType.BINARY, shown
            assert time.monotonic() < end, shown
            self._stream.feed(message.data)

    async def press(self, *keys):
        for key in keys:
            await self._page.send_json(["stdin", key])


@contextlib.asynccontextmanager
async def opened(url, token, origin, **options):
    """A socket, as the page opens it."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/{token}/socket?width=120&height=36", origin=origin, **options) as page,
    ):
        yield page


@contextlib.asynccontextmanager
async def answering(child, **environment):
    """A server in this process, whose dashboards are that program; its URL and token."""
    address = Address()
    gate = Gate.of(address)
    server = Server(gate, [sys.executable, "-S", "-c", child])
    runner = web.ServerRunner(web.Server(server.answer), shutdown_timeout=PATIENCE)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", gate.token
    finally:
        await server.close()
        await runner.cleanup()


# -- where it listens --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "host", "port"),
    [
        ("127.0.0.1:9000", "127.0.0.1", 9000),
        ("localhost:9000", "127.0.0.1", 9000),
        ("9000", "127.0.0.1", 9000),
        (":9000", "127.0.0.1", 9000),
        ("127.0.0.1", "127.0.0.1", 8000),
        ("127.9.9.9", "127.9.9.9", 8000),
        ("[::1]:0", "::1", 0),
    ],
)
def test_an_address(said, host, port):
    """An address of this host alone is taken, with a port, without one, or as a port alone."""
    assert Address.parse(said) == Address(host, port)


@pytest.mark.parametrize(
    "said",
    [
        "0.0.0.0:8000",
        "0.0.0.0",
        "[::]:8000",
        "192.168.1.7:80",
        "example.com",
        "127.0.0.1.evil.test:1",
        "0x7f.1",
    ],
)
def test_an_address_that_others_reach(said):
    """What another host could reach is refused, with the way to look from there."""
    with pytest.raises(CommandError, match="only this host can reach") as refused:
        Address.parse(said)
    assert "ssh -L" in refused.value.hint


@pytest.mark.parametrize(
    "said", ["127.0.0.1:99999", "127.0.0.1:x", "::1:80", "[::1", "emails:1:2", "127.0.0.1:٣"]
)
def test_no_address(said):
    """What is no address is refused."""
    with pytest.raises(CommandError, match="is not an address"):
        Address.parse(said)


# -- who is let in -----------------------------------------------------------------------------------------


async def test_pages_and_sockets_that_are_refused():
    """Without the token, by another host's name, or from another's page, nothing is said or begun."""
    async with (
        answering("import os; os.kill(os.getppid(), 9)") as (url, token),
        aiohttp.ClientSession() as session,
    ):
        host = url.removeprefix("http://")
        wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
        requests = [
            ("GET", path, {})
            for path in (
                *(
                    "/",
                    "//",
                    "/socket",
                    "/textual.js",
                    "/static/js/textual.js",
                    f"/{wrong}/",
                    f"/{token}",
                    f"/{token[:-1]}/",
                ),
                *(
                    f"/{token}x/",
                    f"/x/{token}/",
                    f"/{token}/nosuch",
                    f"/{token}//",
                    f"/{token}/..%2f..%2fetc/passwd",
                ),
                *(f"/{token}/static/", f"/{token.swapcase()}/", f"/?{token}", "/%ff%fe/"),
            )
        ]
        requests += [
            ("GET", f"/{token}/{name}", {"Host": named})
            for name in ("", "socket", "textual.js")
            for named in (
                "evil.test",
                f"evil.test:{host[10:]}",
                "127.0.0.1.evil.test",
                f"{host}.evil.test",
                "",
                "[::1]x",
            )
        ]
        requests += [(method, f"/{token}/", {}) for method in ("POST", "HEAD", "OPTIONS", "PUT")]
        for method, path, headers in requests:
            async with session.request(method, url + path, headers=headers) as answer:
                assert (answer.status, await answer.read()) == (404, b""), (method, path, headers)
        origin = url
        for given, headers in [
            (token, {}),  # no page at all
            (token, {"Origin": "null"}),
            (token, {"Origin": "http://evil.test"}),
            (token, {"Origin": origin + "0"}),
            (token, {"Origin": origin.replace("http:", "https:")}),
            (token, {"Origin": "http://localhost:" + host.partition(":")[2]}),
            (token, {"Origin": origin + "/"}),
            (token, {"Origin": "http://evil.test", "Host": "evil.test"}),
            (wrong, {"Origin": origin}),
            ("", {"Origin": origin}),
        ]:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(f"{url}/{given}/socket", headers=headers)
            assert refused.value.status == 404, (given, headers)


async def test_the_page_names_nobody_else():
    """The page and its parts come from here alone, are kept by nobody, and may speak to nobody else."""
    async with answering(SMALL) as (url, token), aiohttp.ClientSession() as session:
        async with session.get(f"{url}/{token}/") as answer:
            page, headers = await answer.text(), answer.headers
        socket = f"{url.replace('http:', 'ws:')}/{token}/socket"
        assert socket in page
        assert "//" not in page.replace(socket, "")
        assert headers["Content-Security-Policy"].startswith(
            "default-src 'none'; script-src 'self'; style-src 'self';"
        )
        assert "unsafe" not in headers["Content-Security-Policy"]
        for name in ("textual.js", "xterm.css", "page.css", "page.js", "mono.ttf"):
            assert name in page or name == "mono.ttf"
            async with session.get(f"{url}/{token}/{name}") as answer:
                assert answer.status == 200
                assert await answer.read()
                assert answer.headers["Cache-Control"] == "no-store"
                assert answer.headers["Referrer-Policy"] == "no-referrer"
        # As from the other end of an ssh tunnel, whose port is another.
        async with session.get(f"{url}/{token}/", headers={"Host": "localhost:9999"}) as answer:
            assert f"ws://localhost:9999/{token}/socket" in await answer.text()


def test_tokens():
    """A token has 192 bits, and is another each time."""
    tokens = {Gate.of(Address()).token for _ in range(100)}
    assert len(tokens) == 100
    assert {len(token) for token in tokens} == {24 * 8 // 6}


# -- what a session is -------------------------------------------------------------------------------------


async def test_at_most_so_many_sessions():
    """More sessions than are allowed are refused, until one has ended."""
    async with answering(SMALL) as (url, token), contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(opened(url, token, url)) for _ in range(serving.SESSIONS)]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await stack.enter_async_context(opened(url, token, url))
        assert refused.value.status == 503
        await sockets[0].close()
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(aiohttp.WSServerHandshakeError):
                    await stack.enter_async_context(opened(url, token, url))
                    break
                await asyncio.sleep(0.01)


async def test_what_a_dashboard_knows(monkeypatch):
    """A dashboard is begun with nothing of the server's surroundings but what it needs."""
    for name in (
        "AWS_SECRET_ACCESS_KEY",
        "PAGER",
        "EDITOR",
        "TEXTUAL",
        "TEXTUAL_LOG",
        "SSH_AUTH_SOCK",
        "PATH",
    ):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("TEXTUAL_FPS", "60")
    monkeypatch.setenv("LC_TIME", "C")
    told = surroundings(os.environ, (100, 30))
    assert "secret" not in told.values()
    assert told["LC_TIME"] == "C"
    assert (told["COLUMNS"], told["ROWS"], told["TEXTUAL_FPS"]) == ("100", "30", str(serving.FRAMES))
    then = "d = ' '.join(sorted(os.environ)).encode(); os.write(1, b'D' + len(d).to_bytes(4, 'big') + d)"
    async with answering(CHILD.format(then=then)) as (url, token), opened(url, token, url) as page:
        assert set((await page.receive_bytes()).decode().split()) - {"LC_CTYPE"} == set(told) - {"LC_CTYPE"}


@pytest.mark.parametrize(
    "said",
    [
        "x",
        "{}",
        "[]",
        '["stdin", 1]',
        '["stdin", "\\ud800"]',
        '["quit", {}]',
        '["resize", {"width": "9"}]',
        "[" * 5000,
    ],
)
async def test_what_no_page_says(said):
    """A socket that says what no page says is closed, and its dashboard ended."""
    async with answering(CHILD.format(then=ECHO)) as (url, token), opened(url, token, url) as page:
        await page.send_str(said)
        assert (await page.receive(PATIENCE)).type is aiohttp.WSMsgType.CLOSE


async def test_too_much_at_once():
    """A message that is larger than any paste should be is not taken."""
    async with answering(CHILD.format(then=ECHO)) as (url, token), opened(url, token, url) as page:
        await page.send_json(["stdin", "x" * serving.LARGEST_MESSAGE])
        closed = await page.receive(PATIENCE)
        assert closed.data == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


def test_sizes_that_no_screen_has():
    """Whatever size a page says it has, a dashboard is told one that a screen can have."""
    for width, height, expected in [
        (10**9, -5, b'"width":500,"height":1'),
        (80, 24, b'"width":80,"height":24'),
    ]:
        assert expected in packet_of(f'["resize", {{"width": {width}, "height": {height}}}]')
    for width, height in [("9" * 30, "x"), (None, "-3"), ("", "1e3")]:
        assert serving._size(width, height) == (80, 24)
    assert serving._size("0", "999999") == (1, 200)


@pytest.mark.parametrize(
    "then",
    ["import time\nwhile True: time.sleep(60)", "\nwhile True: os.write(1, b'D\\0\\1\\0\\0' + b'x' * 65536)"],
)
async def test_a_dashboard_that_does_not_end(monkeypatch, then):
    """A dashboard that does not end when its socket has closed is killed, be it ever so talkative."""
    monkeypatch.setattr(serving, "PATIENCE", 0.2)
    async with answering(CHILD.format(then=SAY_PID + then)) as (url, token):
        async with opened(url, token, url) as page:
            child = int(await page.receive_bytes())
        assert await asyncio.to_thread(gone, child)


async def test_a_server_that_closes():
    """A server that is closed closes every socket, and ends every dashboard."""
    async with contextlib.AsyncExitStack() as stack:
        async with answering(CHILD.format(then=SAY_PID + "sys.stdin.read()")) as (url, token):
            pages = [await stack.enter_async_context(opened(url, token, url)) for _ in range(2)]
            children = [int(await page.receive_bytes()) for page in pages]
        for page, child in zip(pages, children, strict=True):
            assert (await page.receive(PATIENCE)).type is aiohttp.WSMsgType.CLOSE
            assert await asyncio.to_thread(gone, child)


async def test_a_dashboard_that_breaks(caplog):
    """A dashboard that breaks closes its socket, and the log says why, with nothing for a terminal in it."""
    child = "import sys; sys.stderr.write('it broke \\x1b[2J'); sys.exit(3)"
    async with answering(child) as (url, token), opened(url, token, url) as page:
        assert (await page.receive(PATIENCE)).type is aiohttp.WSMsgType.CLOSE
    assert "a dashboard ended with 3: it broke \\x1b[2J" in caplog.text


# -- the whole of it ---------------------------------------------------------------------------------------


async def test_nothing_can_be_changed(tmp_path):
    """No key of a session asks for a change, on any screen, writes a file of it or begins a program."""
    root = tmp_path / HOSTILE / "queues"
    root.parent.mkdir()
    fill(root)
    before = tree(root)
    pager = tmp_path / "pager"
    pager.write_text(f"#!/bin/sh\ntouch '{tmp_path}/pwned'\n")
    pager.chmod(0o700)
    with served(root, PAGER=str(pager), EDITOR=str(pager), VISUAL=str(pager)) as server:
        async with opened(server.origin, server.token, server.origin) as page:
            browser = Browser(page)
            await browser.until("emails")
            (child,) = server.children()
            assert "--read-only" in arguments_of(child)
            for screen in SCREENS:
                for key in KEYS:
                    # Behind a dialog the next screen would not come.
                    for each, then in ((screen, key), ("1 Queues", "")):
                        await browser.press(each[0])
                        await browser.until(f"[{each}]")
                        await browser.press(*then)
            assert server.children() == [child]
        assert await asyncio.to_thread(gone, child)
        assert tree(root) == before
        kept = sorted(path.name for path in (tmp_path / HOSTILE / "state").rglob("*"))
        assert kept in ([], ["duraq-dashboard"], ["dash.log", "duraq-dashboard"])
    assert not list(tmp_path.rglob("pwned"))
    assert not list(Path.cwd().glob("pwned"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_the_server_ends(tmp_path, number):
    """When the server ends, by a signal or by being killed, no dashboard outlives it."""
    fill(tmp_path / "queues")
    with served(tmp_path / "queues") as server:
        async with opened(server.origin, server.token, server.origin) as page:
            await Browser(page).until("emails")
            (child,) = server.children()
            server.process.send_signal(number)
            assert await asyncio.to_thread(gone, child)
            code = await asyncio.to_thread(server.process.wait, PATIENCE)
    assert code == (-9 if number == signal.SIGKILL else Code.TERMINATED)


async def test_leaving_from_within(tmp_path):
    """Who leaves the dashboard by its own key ends his session, and not the server."""
    fill(tmp_path / "queues")
    with served(tmp_path / "queues", "reports") as server:
        async with opened(server.origin, server.token, server.origin) as page:
            browser = Browser(page)
            await browser.until("reports")
            await browser.press("\x11")
            async with asyncio.timeout(PATIENCE):
                while (message := await page.receive()).type is aiohttp.WSMsgType.BINARY:
                    pass
            assert message.type is aiohttp.WSMsgType.CLOSE
        async with aiohttp.ClientSession() as session, session.get(server.url) as answer:
            assert answer.status == 200


# What a page may try: to connect, to read, to run what is there, and to show it as a part of itself.
ATTEMPTS = (
    """new Promise(is => { const s = new WebSocket(SOCKET);
                         s.onopen = () => is('open'); s.onerror = () => is('refused') })""",
    "fetch(PAGE).then(() => 'read', () => 'refused')",
    """new Promise(is => { const s = document.createElement('script'); s.src = PAGE + 'textual.js';
                         s.onload = () => is('run'); s.onerror = () => is('refused');
                         document.body.append(s) })""",
    """new Promise(is => { const f = document.createElement('iframe'); f.src = PAGE;
                         f.onload = () => is(f.contentDocument ? 'framed' : 'refused');
                         document.body.append(f) })""",
)


# -- in a browser ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not DEEP, reason="deep runs only")
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
async def test_in_a_browser(tmp_path):
    """A real browser shows the queues and takes keys, asks nobody else for anything, and opens no window."""
    fill(tmp_path / "queues")
    with served(tmp_path / "queues") as server:
        async with chromium(tmp_path / "profile") as browser:
            await browser.call("Page.navigate", url=server.url)
            await browser.until(lambda: b"emails" in browser.received)
            assert len(server.children()) == 1
            await browser.press("6")
            await browser.until(lambda: "[6 Events]" in drawn(browser.received))
            assert await browser.value("window.open('http://127.0.0.1/') === null")
            refused = "fetch('http://127.0.0.1:{}/').then(() => 'reached', () => 'refused')"
            assert await browser.value(refused.format(9)) == "refused"
            assert {address.split("/")[2] for address in browser.requested} == {server.origin.split("/")[2]}
            await browser.press("q")
            await browser.until(lambda: browser.all("Network.webSocketClosed"))
            await browser.value("document.querySelector('.over a').click()")
            await browser.until(lambda: len(browser.all("Network.webSocketHandshakeResponseReceived")) == 2)
            children = server.children()
            assert children
        for child in children:
            assert await asyncio.to_thread(gone, child)


@pytest.mark.skipif(not DEEP, reason="deep runs only")
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
async def test_another_page_in_a_browser(tmp_path):
    """A page of another origin cannot connect, frame or read anything, even if it knows the address."""
    fill(tmp_path / "queues")

    async def other_page(_request):
        return web.Response(text="<p>another page</p>", content_type="text/html")

    runner = web.ServerRunner(web.Server(other_page))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        with served(tmp_path / "queues") as server:
            async with chromium(tmp_path / "profile") as browser:
                # The same host, and so the same site; only the port differs.
                await browser.call("Page.navigate", url=f"http://127.0.0.1:{runner.addresses[0][1]}/")
                await browser.until(lambda: browser.all("Page.loadEventFired"))
                url = server.url.replace("http:", "ws:") + "socket"
                for attempt in ATTEMPTS:
                    made = attempt.replace("SOCKET", f"'{url}'").replace("PAGE", f"'{server.url}'")
                    assert await browser.value(made) == "refused", attempt
                assert server.children() == []
    finally:
        await runner.cleanup()


# -- the command -------------------------------------------------------------------------------------------


def test_without_the_extra(monkeypatch):
    """Where textual-serve is missing, it is said what to install."""
    for name in ("textual_serve", "aiohttp"):
        with monkeypatch.context() as without:
            without.delitem(sys.modules, "duraq_dashboard.serving")
            without.setitem(sys.modules, name, None)
            with pytest.raises(CommandError, match="textual-serve is not installed") as refused:
                CliRunner().invoke(cli, ["dash", "--serve"], obj=Settings(), catch_exceptions=False)
        assert refused.value.hint == "pip install 'duraq[web]'"


async def test_a_port_that_is_taken(tmp_path):
    """A port that somebody else has is an error that says what else to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with served(tmp_path, port=port) as server:
            assert server.url == (
                f"duraq: 127.0.0.1:{port} cannot be listened at: Address already in use"
                " (--serve 0 takes any port that is free)"
            )
            assert await asyncio.to_thread(server.process.wait, PATIENCE) == Code.CONFLICT


async def test_a_served_dashboard_starts_no_program(dashboard, source):
    """Behind a socket there is no key for a pager or for what systemd says."""
    source.show(snapshot(queue_now(queue_view("mail", 2))))
    async with dashboard(read_only=True, options=Options(served=True)).run_test(size=(120, 36)) as pilot:
        await pilot.press("4")
        actions = {
            active.binding.action for active in pilot.app.screen.active_bindings.values() if active.enabled
        }
        assert not {"pager", "unit"} & actions
        assert {"copy", "help"} <= actions
        assert any("READ-ONLY" in line for line in text_of(pilot.app))
