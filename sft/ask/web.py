"""The page, served: to this machine alone unless a password is asked for, and without a word to any other."""

import contextlib
import hmac
import os
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import, which looks at it

from gradio.themes import Base
from starlette.middleware import Middleware

from sft.ask.asker import Asker
from sft.ask.page import build_page
from sft.data.files.sources import is_local
from sft.data.records import Example
from sft.data.rows import examples_of
from sft.generation.answerer import Answerer
from sft.run.feedback import one_at_a_time
from sft.run.held_out import read_side, training_data
from sft.system.errors import UserError, say, warn
from sft.system.texts import text

EXAMPLES = 4
"""Held-out rows a group to ask with one click."""
FONTS = ("Hiragino Sans", "Noto Sans CJK JP", "Noto Sans JP", "Yu Gothic", "Meiryo", "system-ui", "sans-serif")
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'"
)
"""What a browser may load for the page: nothing from elsewhere."""


def serve(answerer: Answerer, overrides: list[str], host: str | None, password: str | None, port: int | None) -> None:
    """Show the page until Ctrl-C. `host` None: this machine alone. `port` None: the first free one from 7860 on.

    Raises UserError where the port is taken.
    """
    page = build_page(Asker(answerer, overrides), held_out(answerer)).queue(max_size=32)
    auth = (lambda user, given: hmac.compare_digest(given.encode(), password.encode())) if password else None
    try:
        with without_proxies():
            _, url, _ = page.launch(
                server_name=host or "127.0.0.1",
                server_port=port,
                auth=auth,
                auth_message=text("page.password") if password else None,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                enable_monitoring=False,
                run_history=False,
                footer_links=[],
                theme=Base(font=FONTS, font_mono=("monospace",)),
                css_paths=Path(__file__).with_name("page.css"),
                app_kwargs={"middleware": [Middleware(OnlyFromHere)], "docs_url": None, "redoc_url": None},
            )
    except OSError as error:
        at = "" if port is None else f"--port {port}: "
        raise UserError(f"{at}the page cannot be listened for ({error}); give another --port") from None
    say(text("page.ready", url=url), sys.stderr)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        sys.stdout.flush()
        sys.stderr.flush()
        with one_at_a_time:  # a rating that is being written is written
            # An exit as usual would wait for a thread that is at work on an answer, and for browsers that stay.
            os._exit(0)


@contextlib.contextmanager
def without_proxies() -> Iterator[None]:
    """Let Gradio, which asks its own server whether it is up, ask no proxy for that in the block."""
    found = {name: os.environ.pop(name) for name in [*os.environ] if name.lower().endswith("_proxy")}
    try:
        yield
    finally:
        os.environ.update(found)


def held_out(answerer: Answerer) -> list[Example]:
    """A few of the rows that the run held out, of each group; a warning and none where they are not in local files.

    The hub is not asked: the page starts without reaching for any other host.
    """
    if not all(is_local(source.path) for source in answerer.config.data.sources):
        warn(["the page has no examples: the run's rows are not in local files; data.path=… names a copy of them"])
        return []
    try:
        rows = read_side(answerer.run, "test", training_data(answerer.run, answerer.config))
    except UserError as error:
        warn([f"the page has no examples: {error}"])
        return []
    found: list[Example] = []
    of_group: Counter[str] = Counter()
    for row in examples_of(rows):
        if of_group[row.group] < EXAMPLES and not row.history:
            of_group[row.group] += 1
            found.append(row)
    return found


class OnlyFromHere:
    """Tells browsers to load nothing from other hosts, and to show the page in nobody's frame."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer a request, with the policy in its headers."""

        async def with_policy(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy)
