"""A page in headless Chromium: what it logs, what it asks for, what it looks like."""

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import aiohttp

OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --hide-scrollbars --no-first-run"
    " --disable-extensions --disable-component-update --disable-background-networking"
    " --remote-debugging-port=0"
)
START_S, ANSWER_S = 180, 180
SIZES = "[document.documentElement.scrollWidth, innerWidth]"
BROKEN = """[...document.images].filter((i) => !i.complete || !i.naturalWidth).map((i) => i.alt)"""
DECODED = """Promise.all([...document.images].map((i) => i.decode())).then((all) => all.length)"""


class Page:
    """A page that is open."""

    def __init__(self, loop, socket):
        self._loop, self._socket, self._number = loop, socket, 0
        self.events = []

    def call(self, method, **params):
        """Ask Chromium for something; events that come in between are kept."""
        return self._loop.run_until_complete(self._call(method, params))

    async def _call(self, method, params):
        self._number += 1
        number = self._number
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            said = json.loads(await asyncio.wait_for(self._socket.receive_str(), ANSWER_S))
            if said.get("id") == number:
                assert "error" not in said, said
                return said["result"]
            self.events.append(said)

    def do(self, expression):
        """Return what a line of JavaScript gives."""
        asked = {"returnByValue": True, "awaitPromise": True, "userGesture": True}
        found = self.call("Runtime.evaluate", expression=expression, **asked)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, path):
        """Open a file, and wait until all of it is there."""
        self.call("Page.navigate", url=Path(path).resolve().as_uri())
        ends = time.monotonic() + ANSWER_S
        while self.do("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < ends
            time.sleep(0.1)
        self.do(DECODED)

    def wait(self, expression, value):
        """Wait until a line of JavaScript gives a value: events take their time."""
        ends = time.monotonic() + ANSWER_S
        while (found := self.do(expression)) != value:
            assert time.monotonic() < ends, found
            time.sleep(0.05)

    def resize(self, width, height=900):
        """Make the window as wide as that."""
        about = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **about)

    def prefer(self, scheme):
        """Prefer light or dark, as a user's system does."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def key(self, key, code):
        """Press a key."""
        for kind in ("rawKeyDown", "keyUp"):
            about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", type=kind, **about)

    def shot(self, path, *, top=0, height=None):
        """Save what is seen: the whole page, or a part of it."""
        wide, _, high = self.do("[innerWidth, 0, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": top, "width": wide, "height": height or high, "scale": 1}
        found = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(found["data"]))

    @property
    def requests(self):
        """Addresses that were asked for, but for the page itself and what it holds."""
        sent = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        urls = [e["params"]["request"]["url"] for e in sent]
        return [url for url in urls if not url.startswith(("data:", "file:"))]

    @property
    def complaints(self):
        """Errors and warnings of the console, and exceptions."""
        found = []
        for event in self.events:
            about = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(about["exceptionDetails"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled":
                found.append(str(about["args"]))
            elif event["method"] == "Log.entryAdded":
                found.append(about["entry"]["text"])
        return found


@contextmanager
def browser():
    """Start Chromium with an empty page."""
    folder = Path(tempfile.mkdtemp(prefix="chromium-"))
    command = ["chromium", *OPTIONS.split(), f"--user-data-dir={folder}", "about:blank"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loop = asyncio.new_event_loop()
    try:
        port = _port(folder / "DevToolsActivePort", child)
        session, socket = loop.run_until_complete(_connect(port))
        page = Page(loop, socket)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        yield page
        loop.run_until_complete(socket.close())
        loop.run_until_complete(session.close())
    finally:
        child.terminate()
        child.wait()
        loop.close()
        shutil.rmtree(folder, ignore_errors=True)


def _port(file, child):
    ends = time.monotonic() + START_S
    while not (file.exists() and file.read_text().count("\n")):
        assert child.poll() is None, "chromium has ended"
        assert time.monotonic() < ends, "chromium does not start"
        time.sleep(0.1)
    return int(file.read_text().split()[0])


async def _connect(port):
    session = aiohttp.ClientSession()
    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
        pages = [one for one in await answer.json() if one["type"] == "page"]
    socket = await session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=1 << 28)
    return session, socket
