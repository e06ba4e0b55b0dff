"""What a person does with the page, done through the browser's own protocol: sizes, keys, waiting, reading."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

SIZES = {1280: 900, 390: 844}
KEY_CODES = {"Enter": 13, "Escape": 27}


def resize(browser: Any, width: int, scheme: str = "light") -> None:
    touch = {"enabled": True, "maxTouchPoints": 2} if width < 500 else {"enabled": False}
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", touch)
    size = {"width": width, "height": SIZES[width], "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def key(browser: Any, *names: str) -> None:
    for name in names:
        text = {"text": name} if len(name) == 1 else {"text": "\r"} if name == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            code = {"windowsVirtualKeyCode": KEY_CODES[name]} if name in KEY_CODES else {}
            event = {"type": kind, "key": name, **code, **(text if kind == "keyDown" else {})}
            browser.execute_cdp_cmd("Input.dispatchKeyEvent", event)


def wait(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("the page did not come to it in a minute")


def cards(browser: Any) -> int:
    return browser.execute_script("return document.querySelectorAll('.card').length")


def text(browser: Any, css: str) -> str:
    return browser.execute_script("return document.querySelector(arguments[0]).textContent", css)
