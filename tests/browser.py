"""A headless Chromium for tests, spoken to over its DevTools protocol: sizes, clicks, screenshots, what it loaded.

The protocol is a WebSocket, and aiohttp (which Ray's dashboard needs) speaks it; nothing else has to be installed
beside a browser.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell", "chrome-headless-shell")


def installed_browser() -> str | None:
    """The path of a Chromium: `CHROMIUM` in the environment, else from the PATH."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def find_browser() -> str:
    """The same; the test skips where there is none."""
    found = installed_browser()
    if found is None:
        pytest.skip("no Chromium here: apt-get install chromium, or set CHROMIUM to the path of one")
    return found


@dataclass
class Browser:
    """One page of a running browser."""

    socket: aiohttp.ClientWebSocketResponse
    loop: asyncio.AbstractEventLoop
    session: str = ""
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    loaded: bool = False
    count: int = 0

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call one method of the protocol and return its result."""
        return self.loop.run_until_complete(asyncio.wait_for(self._ask(method, parameters), 60))

    async def _ask(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self.count += 1
        own = self.count
        session = {"sessionId": self.session} if self.session else {}
        await self.socket.send_json({"id": own, "method": method, "params": parameters, **session})
        while True:
            message = await self.socket.receive_json()
            if message.get("id") == own:
                assert "error" not in message, message["error"]
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        method, facts = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])
        elif method == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
            self.errors.append(facts["entry"]["text"])
        elif method == "Page.loadEventFired":
            self.loaded = True

    def open(self, url: str, *, width: int, height: int = 900, phone: bool = False, dark: bool = False) -> None:
        """Load `url` in a window of that size and wait until everything in it is there."""
        self.requests, self.errors, self.loaded = [], [], False
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.ask("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=url)
        for _ in range(600):
            if self.loaded:
                break
            self.value("new Promise(done => setTimeout(done, 50))")
        assert self.loaded, f"{url} did not load"
        self.value("Promise.all([...document.images].map(image => image.decode().catch(() => 0)))")

    def value(self, script: str) -> Any:
        """What a JavaScript expression gives in the page."""
        found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, script: str, seconds: float = 30.0) -> Any:
        """The value of a JavaScript expression, as soon as it is one that JavaScript counts as true."""
        end = time.monotonic() + seconds
        while not (found := self.value(script)):
            assert time.monotonic() < end, f"not within {seconds:g} s: {script}"
            time.sleep(0.05)
        return found

    def click(self, element: str) -> None:
        """Press and release the mouse in the middle of what a JavaScript expression gives, as soon as it is there."""
        middle = f"""(part => {{
          if (!part) return null;
          part.scrollIntoView({{block: 'center'}});
          const box = part.getBoundingClientRect();
          return {{x: box.x + box.width / 2, y: box.y + box.height / 2}};
        }})({element})"""
        place = self.wait_for(middle)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, **place, button="left", clickCount=1)

    def screenshot(self, path: Path, *, whole: bool = True) -> Path:
        """Write a PNG of the page, all of its length or the window."""
        found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        if whole:
            size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(found["data"]))
        return path


@contextmanager
def running_browser(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile in `profile`; it ends with the block."""
    command = [
        find_browser(),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--remote-debugging-port=0",
        "--enable-unsafe-swiftshader",  # WebGL without a GPU, for pages of the machine itself
        f"--user-data-dir={profile}",
        "about:blank",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    loop = asyncio.new_event_loop()
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("DevTools listening on "):
                break
        else:
            raise AssertionError(f"the browser did not start: {''.join(lines)}")
        address = lines[-1].removeprefix("DevTools listening on ").strip()
        client, socket = loop.run_until_complete(_connect(address))
        browser = Browser(socket=socket, loop=loop)
        target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        browser.session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            browser.ask(f"{domain}.enable")
        yield browser
        loop.run_until_complete(socket.close())
        loop.run_until_complete(client.close())
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()
        loop.close()


async def _connect(address: str) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
    client = aiohttp.ClientSession()
    return client, await client.ws_connect(address, max_msg_size=0)
