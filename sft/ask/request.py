"""What somebody asks of infer.py, checked before anything is loaded."""

import argparse
import errno
import socket

from sft.ask.questions import check_output
from sft.config.library.packages import check_extra
from sft.system.errors import UserError
from sft.system.visible import is_text


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raise UserError for options that do not go together."""
    if bool(arguments.questions) != bool(arguments.output):
        raise UserError("--questions and --output go together: questions in, answers out")
    if arguments.base and arguments.checkpoint is not None:
        raise UserError("--base answers without any checkpoint: give one of --base and --checkpoint")
    if arguments.both and (arguments.base or not arguments.instruction):
        raise UserError("--both asks both models one question: give --instruction, and leave --base out")
    if arguments.questions and arguments.instruction:
        raise UserError("--questions brings its own; leave --instruction out")
    if arguments.input and not arguments.instruction:
        raise UserError("--input is the context of a question: give --instruction too")
    if arguments.instruction is not None and not arguments.instruction.strip():
        raise UserError("--instruction is empty")
    if not is_text((arguments.instruction or "") + arguments.input):
        raise UserError("--instruction and --input must be text in the terminal's encoding")
    if arguments.output:
        check_output(arguments.output)
    _check_page(arguments)


def _check_page(arguments: argparse.Namespace) -> None:
    others = [name for name in ("host", "password", "port") if getattr(arguments, name) is not None]
    if not arguments.web:
        if others:
            raise UserError(f"--{others[0]} is of the page: give --web too")
        return
    if arguments.questions or arguments.instruction is not None or arguments.base:
        raise UserError("--web shows a page on which both models are asked; leave the question and --base out")
    if (arguments.host is None) != (arguments.password is None):
        raise UserError(
            "--host and --password go together: without them the page is for this machine alone, and others need "
            "the password"
        )
    if arguments.password is not None and not (arguments.password.strip() and is_text(arguments.password)):
        raise UserError("--password is empty, or no text")
    if arguments.port is not None and not 1 <= arguments.port <= 65535:
        raise UserError(f"--port {arguments.port}: must be between 1 and 65535")
    check_extra("web", "--web")
    check_address(arguments.host, arguments.port)


def check_address(host: str | None, port: int | None) -> None:
    """Raise UserError where the page could not be listened for: a model may take minutes to load."""
    try:
        found = socket.getaddrinfo((host or "127.0.0.1").strip("[]"), port or 0, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no such name"
        if port and isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise UserError(f"--port {port}: cannot be listened to ({reason}); give another, or none") from None
        raise UserError(f"--host {host}: is no address of this machine ({reason}); 0.0.0.0 stands for all") from None
