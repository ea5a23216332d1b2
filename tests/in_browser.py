"""A Chromium without a window, spoken to by its own protocol for tools."""

import asyncio
import base64
import contextlib
import shutil
import subprocess

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--remote-debugging-port=0",
        "--window-size=1280,800",
    ),
)
PATIENCE = 60  # seconds


class Chromium:
    """One tab of it, and what has been told of that tab."""

    def __init__(self, page):
        self._page = page
        self._number = 0
        self.told = []

    async def call(self, method, **parameters):
        """Have something done; the answer."""
        self._number += 1
        await self._page.send_json({"id": self._number, "method": method, "params": parameters})
        while (found := await self._next()).get("id") != self._number:
            self.told.append(found)
        assert "error" not in found, found
        return found["result"]

    async def until(self, is_so):
        """Wait until what has been told is so."""
        while not is_so():
            self.told.append(await self._next())

    async def value(self, expression):
        """What that is in the page, once it is known."""
        found = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True)
        return found["result"].get("value")

    async def press(self, key):
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, **({"text": key} if kind == "keyDown" else {})
            )

    def all(self, method):
        """What has been told by that name."""
        return [each["params"] for each in self.told if each.get("method") == method]

    @property
    def requested(self):
        """Every address that was asked for anything, sockets too."""
        pages = [each["request"]["url"] for each in self.all("Network.requestWillBeSent")]
        return pages + [each["url"] for each in self.all("Network.webSocketCreated")]

    @property
    def received(self):
        """What came through sockets."""
        frames = [each["response"] for each in self.all("Network.webSocketFrameReceived")]
        return b"".join(base64.b64decode(each["payloadData"]) for each in frames if each["opcode"] == 2)

    async def _next(self):
        return await self._page.receive_json(timeout=PATIENCE)


@contextlib.asynccontextmanager
async def chromium(directory):
    """A new one, with nothing of anybody's."""
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={directory}", "about:blank"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        line = ""
        while not line.startswith("DevTools listening on "):
            line = (await process.stderr.readline()).decode()
            assert line, "it ended"
        host = line.split("/")[2]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{host}/json") as answer:
                (tab,) = [each for each in await answer.json() if each["type"] == "page"]
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as page:
                browser = Chromium(page)
                for domain in ("Network", "Page", "Runtime"):
                    await browser.call(f"{domain}.enable")
                yield browser
    finally:
        process.terminate()
        await process.communicate()
