"""Fine-tune a base model with LoRA on instruction rows.

    accelerate launch train_sft.py configs/calm7b-4bit.yaml [section.key=value …] [--resume] [--force]
    python train_sft.py configs/calm7b-4bit.yaml --dry-run [--card 24GB] [--compare TOKENIZER,…]

Settings come from the file, and anything in it can be changed by words after it, such as

    data.path=faq.xlsx                your own rows
    run.directory=runs/faq            where the result goes
    model.base=OWNER/NAME             another base model, from the hub or a directory
    training.num_train_epochs=2       how often the rows are seen
    training.learning_rate=1e-4       how far each step goes

`python -m sft.config` lists all settings, `python -m sft.config training` explains those of a section.

The result is in runs/<config name>/: adapter/, config.yaml, manifest.json, split.json, log.jsonl,
samples.jsonl, loss.png, run.html.
"""

from pathlib import Path

from sft.config.hints import as_setting
from sft.config.load import load_config
from sft.run.directory import check_directory, settle
from sft.system.command_line import command_parser
from sft.system.errors import exit_on_user_error
from sft.system.processes import RANK
from sft.system.texts import speak


def main() -> None:
    """Read the command line, check the configuration, and train."""
    parser = command_parser(__doc__, setting=as_setting)
    parser.add_argument("config", help="a YAML file, e.g. configs/calm7b-4bit.yaml")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help="changes to the configuration"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would happen and what would go wrong; train nothing"
    )
    parser.add_argument("--card", help="with --dry-run: the GPU to fit into, e.g. 24GB, RTX3090 or A100-80GB")
    parser.add_argument("--compare", help="with --dry-run: other tokenizers (hub ids or directories, with commas)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run from its last checkpoint")
    parser.add_argument("--force", action="store_true", help="replace an existing run")
    parser.add_argument("--lang", choices=("ja", "en"), help="the language of doctor and run.html; else the locale's")
    arguments = parser.read()
    speak(arguments.lang)
    if (arguments.card or arguments.compare) and not arguments.dry_run:
        parser.error("--card and --compare belong to --dry-run")
    if "=" in arguments.config and not Path(arguments.config).exists():
        parser.error(f"{arguments.config}: the configuration file comes first, such as configs/calm7b-4bit.yaml")
    with exit_on_user_error("interrupted; --resume continues from the last checkpoint"):
        config = load_config(arguments.config, arguments.overrides).with_absolute_paths()
        if arguments.dry_run:
            from sft.checks.dry_run import dry_run

            dry_run(config, arguments.card, arguments.compare.split(",") if arguments.compare else [])
        else:
            # Before the seconds that imports take; a slower process would meet what this one has begun to write.
            if RANK == 0:
                settle(config.run_directory)  # what a killed start left
                check_directory(config.run_directory, arguments.resume, arguments.force)
            from sft.training.train import train

            train(config, arguments.resume, arguments.force)


if __name__ == "__main__":
    main()
