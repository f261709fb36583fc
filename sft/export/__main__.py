"""Make of a finished run what others can use: its adapter, or the whole model merged, with tokenizer and model card.

    python -m sft.export RUN                     the adapter, ready to upload, in RUN/export/adapter
    python -m sft.export RUN --merge             base and adapter merged in 16 bits, checked, in RUN/export/merged
    python -m sft.export RUN --gguf q4_k_m --llama-cpp DIR  the same, a GGUF file and a Modelfile for Ollama beside it
    python -m sft.export RUN [--merge] --push owner/name  uploaded, after a question; --private makes it a private one

Settings of `model` and `generation` are changed by words behind RUN, such as model.dtype=float32.
"""

from pathlib import Path

from sft.config.hints import as_setting
from sft.export.request import Request
from sft.run.directory import in_use
from sft.system.command_line import command_parser
from sft.system.errors import exit_on_user_error
from sft.system.texts import speak


def main() -> None:
    """Read the command line, export, and upload if asked to."""
    parser = command_parser(__doc__, "python -m sft.export", as_setting)
    parser.add_argument("run", type=Path, help="the directory of a finished run, or of an adapter without one")
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="section.key=value",
        help="changes to model.base, model.device, model.dtype, data.path or generation.…",
    )
    parser.add_argument("--merge", action="store_true", help="the whole model in 16 bits instead of the adapter")
    parser.add_argument(
        "--gguf",
        choices=("f32", "f16", "q8_0", "q4_k_m"),
        help="--merge, and the model as a GGUF file for llama.cpp and Ollama in this format",
    )
    parser.add_argument(
        "--llama-cpp",
        type=Path,
        metavar="DIR",
        help="with --gguf: llama.cpp's source, built in DIR/build or on the PATH; default: the environment's LLAMA_CPP",
    )
    parser.add_argument("--output", type=Path, help="where it goes; default: RUN/export/adapter or RUN/export/merged")
    parser.add_argument("--shard-size", default="2GB", help="most bytes of a weight file (2GB)")
    parser.add_argument(
        "--base-id", metavar="OWNER/NAME", help="the base model's hub id, if a directory was used; none: it has none"
    )
    parser.add_argument("--data-license", metavar="ID", help="the licence of data of your own, e.g. cc-by-4.0")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload it to the Hugging Face hub")
    parser.add_argument("--private", action="store_true", help="with --push: a private repository")
    parser.add_argument("--yes", action="store_true", help="with --push: upload without a question")
    parser.add_argument("--lang", choices=("ja", "en"), help="the language of the model card; the locale's if left out")
    arguments = vars(parser.read())
    speak(arguments.pop("lang"))
    request = Request(**arguments)
    with exit_on_user_error("interrupted; nothing was exported"):
        request.check()
        with in_use(request.run):
            from sft.export.export import export

            export(request)
    if request.push:
        from sft.export.upload import push

        with exit_on_user_error(f"interrupted; the export is in {request.target}"):
            push(request.target, request.push, request.private, request.yes)


if __name__ == "__main__":
    main()
