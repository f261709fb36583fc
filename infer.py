"""Ask a finished run.

    python infer.py                                             an interactive session with the newest finished run
    python infer.py runs/calm7b-4bit --instruction … [--input …]     one question, with or without a context
    python infer.py runs/calm7b-4bit --questions faq.csv --output answers.csv   many, from any file that training reads
    python infer.py runs/calm7b-4bit --web                           a page with both models' answers, on this machine
    python infer.py runs/calm7b-4bit --both --instruction …          the answers of base and tuned model side by side
    python infer.py runs/calm7b-4bit --checkpoint 50                 as the run was after that step, where it was saved

Settings are the run's, and can be changed by words after it, such as

    generation.max_new_tokens=300       how long an answer may be, in tokens
    generation.temperature=0.7          0 always takes the likeliest token
    generation.top_p=0.9                leaves unlikely tokens out where temperature is above 0
    generation.repetition_penalty=1.2   1 is none
    model.device=cpu                    where it is computed

`python -m sft.config` lists all settings, `python -m sft.config generation` explains those of a section.
"""

import sys
from pathlib import Path

from sft.ask.questions import claimed, read_questions, run_columns
from sft.ask.request import check_arguments
from sft.config.hints import as_setting
from sft.run.directory import in_use, newest_finished_run
from sft.system.command_line import command_parser
from sft.system.errors import exit_on_user_error
from sft.system.texts import speak


def main() -> None:
    """Read the command line, load the run, and answer in one of three ways."""
    parser = command_parser(__doc__, setting=as_setting)
    parser.add_argument("run", nargs="?", help="a run directory; without it, the run that finished last")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to the run's settings")
    parser.add_argument("--instruction", help="one question or task")
    parser.add_argument("--input", default="", help="its context")
    spelt = ("--questions", "--jsonl", "--csv")  # one option, whose old name stays
    parser.add_argument(*spelt, type=Path, metavar="FILE", help="rows with a question, in any file of rows")
    parser.add_argument("--output", type=Path, help="a .csv or .jsonl file for all their columns and the answers")
    parser.add_argument("--base", action="store_true", help="answer with the base model alone")
    parser.add_argument("--both", action="store_true", help="one question to both models, their answers side by side")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="answer as the run was after this step")
    parser.add_argument("--allow-other-template", action="store_true", help="allow a prompt.template not trained with")
    parser.add_argument("--web", action="store_true", help="show a page: base and tuned model side by side")
    parser.add_argument("--port", type=int, help="the page's port; the first free one from 7860 on if left out")
    parser.add_argument("--host", help="address for others to reach the page at, such as 0.0.0.0; needs --password")
    parser.add_argument("--password", help="what others have to type to see the page; needs --host")
    parser.add_argument(
        "--lang", choices=("ja", "en"), help="the language of session and page; the locale's if left out"
    )
    arguments = parser.read()
    if arguments.run and "=" in arguments.run and not Path(arguments.run).exists():
        arguments.overrides.insert(0, arguments.run)
        arguments.run = None
    speak(arguments.lang)
    with exit_on_user_error():
        check_arguments(arguments)
        run = Path(arguments.run) if arguments.run else newest_finished_run()
        asked = arguments.questions
        questions = read_questions(asked, run_columns(run, arguments.overrides, asked)) if asked else []
        with in_use(run), claimed(arguments.output) as progress:
            from sft.ask.answers import answer_file
            from sft.ask.piped import answer_lines
            from sft.ask.question import ask, ask_both, load

            answerer = load(
                run, arguments.overrides, arguments.allow_other_template, arguments.base, arguments.checkpoint
            )
            system = "base" if arguments.base else "tuned"
            if arguments.web:
                from sft.ask.web import serve

                serve(answerer, arguments.overrides, arguments.host, arguments.password, arguments.port)
                return
            if not (asked or arguments.instruction) and sys.stdin.isatty() and sys.stdout.isatty():
                from sft.ask.terminal import converse

                converse(answerer, system, arguments.overrides)
                return
            if arguments.both:
                ask_both(answerer, arguments.instruction, arguments.input)
                return
            with answerer.as_system(system):
                if progress:
                    answer_file(answerer, questions, progress, system)
                elif arguments.instruction:
                    ask(answerer, arguments.instruction, arguments.input, set())
                else:
                    answer_lines(answerer, sys.stdin)


if __name__ == "__main__":
    main()
