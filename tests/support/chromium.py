"""A small driver of a real browser: one headless chromium, spoken to through its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import aiohttp

_STARTS_WITHIN_S = 30.0
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers, where chromium refuses its sandbox
    "--disable-gpu",
    "--no-first-run",
    "--disable-extensions",
    "--disable-component-update",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--password-store=basic",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
_KEYS = {
    "Escape": 27,
    "Enter": 13,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "Home": 36,
    "End": 35,
    " ": 32,
}
_MODIFIERS = {"ctrl": 2, "shift": 8}


def find_chromium():
    """Return the path of a chromium, or None."""
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


class PageError(AssertionError):
    """A page raised what nobody caught."""


class Chromium:
    """One browser with one page at a time.

    Args:
        path: The program.
        size: The window's inner width and height in pixels.
    """

    def __init__(self, path, *, size=(1400, 900)):
        self._folder = Path(tempfile.mkdtemp(prefix="chromium-"))
        self.downloads = self._folder / "downloads"
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self.errors, self.requests = [], []
        asked = [path, *_FLAGS, f"--window-size={size[0]},{size[1]}", f"--user-data-dir={self._folder}", "about:blank"]
        environ = {**os.environ, "HOME": str(self._folder)}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(asked, env=environ, **quiet)
        try:
            self._loop.run_until_complete(self._connect(self._port()))
            self.call("Page.enable")
            self.call("Runtime.enable")
            self.call("Network.enable")
            self.call("Emulation.setFocusEmulationEnabled", enabled=True)
            self.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
            self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
            self.resize(*size)
        except BaseException:
            self.close()
            raise

    def _port(self):
        """Wait until the browser says where it listens."""
        port_file = self._folder / "DevToolsActivePort"
        end_s = time.monotonic() + _STARTS_WITHIN_S
        while not (port_file.exists() and port_file.read_text().count("\n")):
            if time.monotonic() > end_s or self._process.poll() is not None:
                raise PageError("chromium did not start")
            time.sleep(0.02)
        return port_file.read_text().splitlines()[0]

    async def _connect(self, port):
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as reply:
            [page] = [each for each in await reply.json() if each["type"] == "page"]
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)

    @property
    def pid(self):
        return self._process.pid

    def close(self):
        """End the browser."""
        if hasattr(self, "_session"):
            self._loop.run_until_complete(self._session.close())
        self._loop.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # Its helpers may write for a moment longer.
        for _ in range(20):
            with contextlib.suppress(OSError):
                shutil.rmtree(self._folder)
                break
            time.sleep(0.05)

    def call(self, method, **params):
        """Call a method of the protocol and return what it gives."""
        return self._loop.run_until_complete(self._call(method, params))

    async def _call(self, method, params):
        self._number += 1
        number = self._number
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = json.loads((await self._socket.receive()).data)
            if message.get("id") == number:
                if "error" in message:
                    raise PageError(f"{method}: {message['error']['message']}")
                return message["result"]
            self._note(message)

    def _note(self, message):
        match message.get("method"):
            case "Runtime.exceptionThrown":
                details = message["params"]["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled" if message["params"]["type"] == "error":
                self.errors.append(str([each.get("value") for each in message["params"]["args"]]))
            case "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])

    def resize(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def media(self, **features):
        """Set media features such as `prefers_color_scheme="dark"`."""
        given = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=given)

    def open(self, path, hash_=""):
        """Open a file and wait until it has drawn itself."""
        # With a number of its own it is loaded anew, whatever was open before.
        self._number += 1
        self.call("Page.navigate", url=f"{Path(path).resolve().as_uri()}?{self._number}{hash_}")
        self.wait("document.readyState === 'complete' && document.querySelector('.scroller') !== null")

    def run(self, script):
        """Evaluate JavaScript in the page; a promise is waited for."""
        reply = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in reply:
            raise PageError(f"{script}: {reply['exceptionDetails'].get('exception', {}).get('description')}")
        return reply["result"].get("value")

    def wait(self, condition, *, within_s=10.0):
        """Wait until a condition in JavaScript holds."""
        end_s = time.monotonic() + within_s
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > end_s:
                raise PageError(f"{condition} did not become true in {within_s:g} s. {self.errors}")
            time.sleep(0.02)

    def click(self, selector, *, modifier=None):
        """Click in the middle of the first node that a selector finds."""
        self.wait(f"document.querySelector({json.dumps(selector)})")
        # What has just changed finds its place in the next frame.
        self.run("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        x, y = self.run(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [box.left + box.width / 2, box.top + box.height / 2]; })()"
        )
        about = {"x": x, "y": y, "button": "left", "clickCount": 1, "modifiers": _MODIFIERS.get(modifier, 0)}
        self.call("Input.dispatchMouseEvent", type="mousePressed", **about)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **about)

    def press(self, *keys):
        """Press keys, one after the other."""
        for key in keys:
            text = {"text": "\r"} if key == "Enter" else {"text": key} if len(key) == 1 else {}
            code = _KEYS.get(key, ord(key.upper()) if len(key) == 1 else 0)
            about = {"key": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", type="keyDown", **about, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text):
        """Type text where the focus is."""
        self.call("Input.insertText", text=text)

    def choose(self, selector, value):
        """Choose an option of a `<select>`."""
        self.run(
            f"(() => {{ const node = document.querySelector({json.dumps(selector)}); node.value = {json.dumps(value)};"
            "node.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    def clipboard(self):
        """Return what was copied."""
        return self.run("navigator.clipboard.readText()")

    def download(self, *, within_s=5.0):
        """Return the text of the file that the page has just saved, and remove it."""
        end_s = time.monotonic() + within_s
        while time.monotonic() < end_s:
            for path in self.downloads.glob("*") if self.downloads.is_dir() else ():
                if path.suffix != ".crdownload" and path.stat().st_size:
                    text = path.read_bytes().decode()
                    path.unlink()
                    return text
            self.run("0")
            time.sleep(0.02)
        raise PageError("nothing was saved")

    def screenshot(self, path):
        """Write what the window shows as a PNG file."""
        Path(path).write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
