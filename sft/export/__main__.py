"""Make of a finished run what others can use: its adapter, or the whole model merged, with tokenizer and model card.

python -m sft.export RUN                              the adapter, ready to upload, in RUN/export/adapter
python -m sft.export RUN --merge                      base and adapter merged in 16 bits, checked, in RUN/export/merged
python -m sft.export RUN [--merge] --push owner/name  uploaded, after a question; --private makes it a private one
"""

import argparse
from pathlib import Path

from sft.run.directory import require_finished
from sft.system.command_line import command_parser
from sft.system.errors import UserError, exit_on_user_error


def main() -> None:
    """Read the command line, export, and upload if asked to."""
    parser = command_parser(__doc__, "python -m sft.export")
    parser.add_argument("run", type=Path, help="the directory of a finished run")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="changes to model.base, model.device, model.dtype, data.path or generation.…",
    )
    parser.add_argument("--merge", action="store_true", help="the whole model in 16 bits instead of the adapter")
    parser.add_argument("--output", type=Path, help="where it goes; default: RUN/export/adapter or RUN/export/merged")
    parser.add_argument("--shard-size", default="2GB", help="most bytes of a weight file (2GB)")
    parser.add_argument("--base-id", metavar="OWNER/NAME", help="the base model's hub id, if a directory was used")
    parser.add_argument("--data-license", metavar="ID", help="the licence of data of your own, e.g. cc-by-4.0")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload it to the Hugging Face hub")
    parser.add_argument("--private", action="store_true", help="with --push: a private repository")
    parser.add_argument("--yes", action="store_true", help="with --push: upload without a question")
    arguments = parser.parse_intermixed_args()
    with exit_on_user_error("interrupted; nothing was exported"):
        default = arguments.run / "export" / ("merged" if arguments.merge else "adapter")
        target = (arguments.output or default).absolute()
        check_arguments(arguments)
        require_finished(arguments.run)

        from sft.export.export import export

        export(
            arguments.run, target, arguments.overrides, arguments.merge, arguments.shard_size,
            arguments.base_id, arguments.data_license, arguments.push,
        )  # fmt: skip
    if arguments.push:
        with exit_on_user_error(f"interrupted; the export is in {target}"):
            push(target, arguments.push, arguments.private, arguments.yes)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raise UserError for options that cannot be met, before any work."""
    from sft.export.upload import check_login, check_repo_id

    if (arguments.private or arguments.yes) and not arguments.push:
        raise UserError(f"{'--private' if arguments.private else '--yes'} goes with --push")
    if arguments.base_id:
        check_repo_id("--base-id", arguments.base_id)
    if arguments.push:
        check_repo_id("--push", arguments.push)
        check_login()


def push(directory: Path, repo_id: str, private: bool, yes: bool) -> None:
    """Upload an export after a question."""
    from sft.export.upload import confirm, upload

    if confirm(directory, repo_id, private, yes):
        print(f"uploaded: {upload(directory, repo_id, private)}")
    else:
        print(f"nothing was uploaded; the export is in {directory}")


if __name__ == "__main__":
    main()
