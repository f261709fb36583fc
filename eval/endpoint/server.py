"""A server that speaks OpenAI's API (vLLM, llama.cpp, commercial ones), asked many things at once. No torch here.

The client is OpenAI's own: it waits and asks again after 408, 409, 429, 5xx and lost connections.
"""

import asyncio
import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import httpx2
import openai

from eval.endpoint.kept import Kept
from eval.endpoint.reply import Reply, read_reply
from eval.endpoint.settings import Server
from sft.system.errors import UserError, first_line, say, warn
from sft.system.files import text_sha256
from sft.system.visible import counted
from sft.system.waiting import EstimatedBar

RETRIES = 5
"""Of one request, each after a longer wait."""
FAILED_IN_A_ROW = 20
"""So many requests that fail one after another, all their retries with them, end the work."""
_CUT = "without sending complete message body"
"""What the client says of a reply whose end never came."""
KEPT_SO_FAR = "what was answered is kept, and the same command goes on"


class Request(NamedTuple):
    """What is sent: `messages` or a `prompt`, and settings, under the names of OpenAI's API."""

    body: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Where it is sent."""
        return "/chat/completions" if "messages" in self.body else "/completions"

    def key(self, server: Server) -> str:
        """Hash of all that the reply depends on."""
        return text_sha256([json.dumps([server.url, server.model, self.path, self.body], sort_keys=True)])


class Failure(NamedTuple):
    """Why a request has no reply."""

    reason: str


def ask_all(server: Server, requests: Sequence[Request], kept: Kept, doing: str) -> list[Reply | Failure]:
    """The reply to each request, those that are kept from there; new ones are kept as they come.

    Requests that are the same are sent once. One that fails, after its retries, is a `Failure`. Raises UserError where
    the server cannot be reached, refuses the key or has no such model, where request after request fails, and where
    there is no reply at all. `doing` says in words what a bar is about.
    """
    keys = [request.key(server) for request in requests]
    missing = {key: one for key, one in zip(keys, requests, strict=True) if key not in kept.replies}
    failures: dict[str, Failure] = {}
    if missing:
        failures = asyncio.run(_ask(server, missing, kept, doing))
    if failures and len(failures) == len(set(keys)):
        raise UserError(f"{server}: every request failed: {next(iter(failures.values())).reason}")
    warn(f"{server}: {counted(n, 'request')} failed: {reason}" for reason, n in _reasons(failures))
    return [kept.replies.get(key) or failures[key] for key in keys]


def say_plan(server: Server, requests: Sequence[Request], kept: Kept) -> None:
    """Print how many calls are to be made, and about how many tokens they take."""
    calls = {request.key(server): request.body for request in requests}
    left = [body for key, body in calls.items() if key not in kept.replies]
    known = len(calls) - len(left)
    read = sum(_characters(body) for body in left)
    limits = [body.get("max_tokens") or body.get("max_completion_tokens") for body in left]
    write = f"at most {sum(filter(None, limits)):,}" if all(isinstance(n, int) for n in limits) else "an unknown number"
    before = f" ({known:,} more are kept from before)" if known else ""
    say(f"{server}: {counted(len(left), 'call')}{before}")
    if left:
        say(f"about {read:,} tokens to read, counting one a character, and {write} to write")


def _characters(body: Mapping[str, Any]) -> int:
    texts = [one["content"] for one in body["messages"]] if "messages" in body else [body["prompt"]]
    return sum(map(len, texts))


def _reasons(failures: Mapping[str, Failure]) -> list[tuple[str, int]]:
    return Counter(failure.reason for failure in failures.values()).most_common(5)


async def _ask(server: Server, requests: Mapping[str, Request], kept: Kept, doing: str) -> dict[str, Failure]:
    failures: dict[str, Failure] = {}
    todo, began, done, in_a_row = iter(requests.items()), time.monotonic(), 0, 0

    def seconds_left() -> float | None:
        return (time.monotonic() - began) / done * (len(requests) - done) if done else None

    async def work() -> None:
        """One of several that share what is to be done."""
        nonlocal done, in_a_row
        for key, request in todo:
            found = await _reply(client, server, request)
            if isinstance(found, Reply):
                kept.add(key, found)
                in_a_row = 0
            else:
                failures[key] = found
                in_a_row += 1
            done += 1
            bar.update()
            if in_a_row >= FAILED_IN_A_ROW:
                last = failures[key].reason
                raise UserError(f"{server}: {in_a_row} requests in a row failed, the last: {last}; {KEPT_SO_FAR}")

    options: dict[str, Any] = {"base_url": server.url, "api_key": _api_key() or "none", "timeout": server.timeout}
    async with openai.AsyncOpenAI(**options, max_retries=RETRIES) as client:
        await _check_reachable(client, server)
        with EstimatedBar(seconds_left, total=len(requests), desc=doing, unit="call") as bar:
            workers = [asyncio.create_task(work()) for _ in range(server.concurrency)]
            try:
                await asyncio.gather(*workers)
            finally:  # what is under way ends before the client closes
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
    return failures


async def _check_reachable(client: openai.AsyncOpenAI, server: Server) -> None:
    """Raise UserError where nobody listens, at once and without retries; what a server says to this does not matter."""
    with contextlib.suppress(openai.APIStatusError, openai.APITimeoutError, ValueError):
        try:
            await client.with_options(max_retries=0, timeout=10).get("/models", cast_to=httpx2.Response)
        except openai.APIConnectionError as error:
            if not isinstance(error, openai.APITimeoutError):
                raise _unreachable(server, error) from None


def _unreachable(server: Server, error: openai.APIConnectionError) -> UserError:
    why = first_line(error.__cause__) if isinstance(error.__cause__, Exception) else "no connection"
    return UserError(f"{server.url}: cannot be reached ({why}); start the server, or check --endpoint; {KEPT_SO_FAR}")


async def _reply(client: openai.AsyncOpenAI, server: Server, request: Request) -> Reply | Failure:
    """Raises UserError for what no other request would be spared."""
    try:
        body = {"model": server.model, **request.body}
        response = await client.post(request.path, cast_to=httpx2.Response, body=body)
        return read_reply(response.content.decode())
    except openai.APITimeoutError:
        return Failure(f"no reply within {server.timeout:g} s")
    except openai.APIConnectionError as error:
        if _CUT in str(error.__cause__):  # the server is there, and this reply is what it fails at
            return Failure(f"its reply was cut: {error.__cause__}")
        raise _unreachable(server, error) from None
    except UnicodeDecodeError:
        return Failure("answered in another encoding than UTF-8")
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise UserError(f"{server.url}: {_said(error)}; set OPENAI_API_KEY to a key for it") from None
    except openai.NotFoundError as error:
        raise UserError(f"{server}: {_said(error)}; {await _known_models(client)}") from None
    except openai.APIStatusError as error:
        return Failure(_said(error))
    except ValueError as error:
        return Failure(first_line(error))


async def _known_models(client: openai.AsyncOpenAI) -> str:
    """What a 404 may be about: the models that there are, or the address."""
    try:
        names = [str(one.id) for one in (await client.models.list()).data]
        return f"its models: {', '.join(names[:10])}"
    except Exception:  # whatever a server of another kind makes of it
        return "it does not list models: is the address right, with /v1 at its end?"


def _said(error: openai.APIStatusError) -> str:
    """The status and what the server says of it, without the key that it may quote."""
    body = error.body if isinstance(error.body, dict) else {}
    words = body.get("message") or body.get("detail") or error.message
    line = f"{error.status_code}: {' '.join(str(words).split())[:200]}"
    return line.replace(key, "…") if (key := _api_key()) else line


def _api_key() -> str:
    """The key of the environment, "" where there is none."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key.isascii() or not key.isprintable():
        raise UserError("OPENAI_API_KEY: holds characters that no key has; set it again")
    return key
