"""The model card: what was trained on what, under which licences, how to ask it, how good it is, what it cannot do."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from huggingface_hub import ModelCard, ModelCardData

from sft.config.sections import Config
from sft.data.records import GROUPS
from sft.export.licences import Base, Data, licence_fields, licence_section
from sft.prompt.chat_template import separator, user_message
from sft.prompt.template import PromptTemplate
from sft.run.manifest import FinishedManifest
from sft.system.visible import escaped, visible

Kind = Literal["adapter", "merged"]

QUESTION = "この図書館は、水曜日は何時に閉まりますか。"
CONTEXT = "みなと町図書館は、平日は午前9時から午後8時まで開いています。月曜日は休みです。"

HYPERPARAMETERS = (
    "num_train_epochs", "total_batch_size", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay",
    "optim", "max_length", "train_on_inputs", "seed",
)  # fmt: skip
METRICS = {"character_f1": "character F1", "rouge_l": "ROUGE-L"}


def model_card(
    kind: Kind,
    model_id: str | None,
    config: Config,
    manifest: FinishedManifest,
    template: PromptTemplate,
    settings: Mapping[str, Any],
    base: Base,
    data: Data,
    results: Mapping[str, Any] | None,
    checked: Sequence[str] = (),
) -> str:
    """The card as Markdown with YAML front matter.

    `model_id` is where it will be uploaded (None: not known), `settings` are the effective generation settings,
    `results` an evaluation's results.json (None: not evaluated), `checked` the lines of a merge's check.
    """
    name = model_id.split("/")[-1] if model_id else config.name
    sections = [
        f"# {escaped(name)}",
        _what(kind, config, base, data),
        licence_section(base, data),
        _asking(kind, model_id, template, settings, base),
        _decoding(settings),
        evaluation(results),
        _training(config, manifest),
        _limits(manifest),
        _made(manifest, checked),
    ]
    return str(ModelCard(f"---\n{_front_matter(kind, base, data)}\n---\n\n" + "\n\n".join(sections) + "\n"))


def _front_matter(kind: Kind, base: Base, data: Data) -> str:
    return ModelCardData(
        language="ja",
        library_name="peft" if kind == "adapter" else "transformers",
        pipeline_tag="text-generation",
        base_model=base.hub_id,
        base_model_relation=(kind if kind == "adapter" else "finetune") if base.hub_id else None,
        datasets=[data.hub_id] if data.hub_id else None,
        tags=["lora", "sft", "instruction", "japanese"],
        **licence_fields(base.licence, data.licence),
    ).to_yaml()


def _what(kind: Kind, config: Config, base: Base, data: Data) -> str:
    form = "A LoRA adapter for" if kind == "adapter" else "A LoRA adapter merged into"
    local = "the model `" + " ".join(visible(base.name).replace("`", "'").split()) + "`"
    link = f"[{base.hub_id}](https://huggingface.co/{base.hub_id})" if base.hub_id else local
    commit = f" at commit `{base.commit}`" if base.commit else ""
    rows = f"[{data.hub_id}](https://huggingface.co/datasets/{data.hub_id})" if data.hub_id else "a local file"
    text = (
        f"{form} {link}{commit}, tuned to follow Japanese instructions, with and without a context, on rows of {rows}."
    )
    if config.model.build == "gemma-3-270m":
        text += (
            "\n\nThe base weights were those of its Q4_K_M GGUF, dequantised to bfloat16, and not the original ones: "
            + ("the adapter was trained beside those." if kind == "adapter" else "this model stands on those.")
        )
    elif not base.hub_id:
        text += "\n\nThe base model was a local directory; which model on the hub it is, if any, was not recorded."
    elif os.path.isabs(config.model.base):
        text += (
            "\n\nThe base model was a local copy, called so by who exported this; it was not compared with the hub's."
        )
    return text


def _asking(kind: Kind, model_id: str | None, template: PromptTemplate, settings: Mapping[str, Any], base: Base) -> str:
    message = user_message(template, QUESTION, CONTEXT)
    between = json.dumps(separator(template), ensure_ascii=False)
    if template.special_tokens is None:
        how = "The tokenizer's chat template makes of one user message exactly the prompt of the training."
        only = "System messages and conversations are refused: it was trained on neither."
    else:
        how = "It was trained with the tokenizer's own chat template, on single user messages."
        only = "It was trained on neither system messages nor conversations."
    request: dict[str, Any] = {"model": model_id or "MODEL", "messages": [{"role": "user", "content": message}]}
    if not settings["do_sample"]:
        request["temperature"] = 0
    request["max_tokens"] = settings["max_new_tokens"]
    return "\n".join(
        [
            "## Asking it",
            "",
            f"{how} A question is the message. A question about a context is one message, too: instruction, "
            f"`{between}`, context. {only}",
            "",
            _fenced(_code(kind, model_id, message, settings, base), "python"),
            "",
            "`sanitize_control_tokens` reads the names of special tokens in a question as text, as the training did; a "
            "server without it takes them for the tokens. The prompt that the model sees:",
            "",
            _fenced(template.render(QUESTION, CONTEXT)),
            "",
            "As a request to an OpenAI-compatible endpoint (`/v1/chat/completions`):",
            "",
            _fenced(json.dumps(request, ensure_ascii=False, indent=2), "json"),
        ]
    )


def _code(kind: Kind, model_id: str | None, message: str, settings: Mapping[str, Any], base: Base) -> str:
    where = json.dumps(model_id or ".") + ("" if model_id else "  # this directory, or its id on the hub")
    penalty = settings.get("repetition_penalty")
    imports = ["AutoModelForCausalLM", "AutoTokenizer"]
    arguments = [f"{key}={value!r}" for key, value in settings.items() if not key.startswith("repetition_penalty")]
    lines = [f"name = {where}", "tokenizer = AutoTokenizer.from_pretrained(name)"]
    if kind == "merged":
        lines.append('model = AutoModelForCausalLM.from_pretrained(name, dtype="auto")')
    else:
        revision = f", revision={json.dumps(base.commit)}" if base.commit else ""
        lines += [
            f'base = AutoModelForCausalLM.from_pretrained({json.dumps(base.name)}{revision}, dtype="auto")',
            "model = PeftModel.from_pretrained(base, name)",
        ]
    lines += [
        f'messages = [{{"role": "user", "content": {json.dumps(message, ensure_ascii=False)}}}]',
        "inputs = tokenizer.apply_chat_template(",
        '    messages, add_generation_prompt=True, sanitize_control_tokens=True, return_dict=True, return_tensors="pt"',
        ")",
        'length = inputs["input_ids"].shape[1]',
    ]
    if penalty and settings.get("repetition_penalty_scope") == "generated":
        imports += ["LogitsProcessorList", "RepetitionPenaltyLogitsProcessor"]
        lines += [
            "# The penalty counts the answer's own tokens and spares the prompt (repetition_penalty=… would not).",
            f"penalty = RepetitionPenaltyLogitsProcessor({penalty}, prompt_ignore_length=length)",
        ]
        arguments.append("logits_processor=LogitsProcessorList([penalty])")
    elif penalty:
        arguments.append(f"repetition_penalty={penalty}")
    head = [f"from transformers import {', '.join(sorted(imports))}", ""]
    if kind == "adapter":
        head.insert(0, "from peft import PeftModel")
    lines += [
        f"output = model.generate(**inputs, {', '.join(arguments)})",
        "print(tokenizer.decode(output[0, length:], skip_special_tokens=True))",
    ]
    return "\n".join(head + lines)


def _decoding(settings: Mapping[str, Any]) -> str:
    penalty, scope = settings.get("repetition_penalty"), settings.get("repetition_penalty_scope")
    how = ", ".join(f"{key} {value}" for key, value in settings.items() if not key.startswith(("repetition", "do_")))
    lines = ["## Decoding", "", f"Recommended: {'sampling' if settings['do_sample'] else 'greedy'}, {how}"]
    if not penalty:
        lines[-1] += ", no repetition penalty."
    elif scope == "generated":
        lines[-1] += f", repetition penalty {penalty} **counted over generated tokens only**."
    else:
        lines[-1] += f", repetition penalty {penalty} over the prompt and the answer, as it was configured."
    lines += [
        "",
        "A repetition penalty that counts the prompt keeps an answer from quoting its context. Measured with a tuned "
        "gemma-3-270m on 200 JSQuAD questions: without a penalty 61% of the answers held the right words, with 1.2 on "
        "generated tokens 57%, with 1.2 over the prompt, too, 36%, with 5.0 over the prompt 3%. transformers and vLLM "
        "(`repetition_penalty`) and llama.cpp (`--repeat-penalty`) count the prompt; generation_config.json has none:",
        "",
        "- transformers: `RepetitionPenaltyLogitsProcessor` with `prompt_ignore_length`"
        f"{', as above' if penalty and scope == 'generated' else ''}.",
        "- vLLM: leave `repetition_penalty` at 1.0; `presence_penalty` and `frequency_penalty` count the answer only "
        "(other values, to be found by trying).",
        "- llama.cpp: `--repeat-penalty 1.0`; its other penalties count the end of the prompt, too.",
    ]
    if not settings["do_sample"]:
        lines.append("- Servers sample unless told otherwise: send `temperature: 0` (llama.cpp: `--temp 0`).")
    return "\n".join(lines)


def evaluation(results: Mapping[str, Any] | None) -> str:
    """The section on scores, of an evaluation's results.json; None: not evaluated."""
    if not results:
        return "## Evaluation\n\nNot evaluated."
    generation = results["settings"]["generation"]["tuned"]
    answered = escaped(", ".join(f"{key} {value}" for key, value in generation.items()))
    lines = [
        "## Evaluation",
        "",
        f"On {results['rows']['total']:d} held-out rows, by task category: mean [95% bootstrap interval over contexts]."
        " The best floor is the best of answers that need no understanding (the question echoed, another row's "
        "reference, a constant, the beginning of the context): a score at its floor shows none. Overlap is not "
        "correctness. Measured on the model as it was trained (base and adapter), answered with: "
        f"{answered}.",
    ]
    for metric, title in METRICS.items():
        rows = [f"| **{title}** | n | base | this model | difference | best floor |", "|---|--:|--:|--:|--:|--:|"]
        for group, categories in GROUPS.items():
            rows += [
                _score_row(results, kind, scope, metric)
                for kind, scope in [("groups", group), *(("categories", category) for category in categories)]
                if scope in results["systems"]["tuned"][kind]
            ]
        lines += ["", *rows]
    return "\n".join(lines)


def _score_row(results: Mapping[str, Any], kind: str, scope: str, metric: str) -> str:
    def value(table: Mapping[str, Any], sign: str = "") -> str:
        estimate = table.get(kind, {}).get(scope, {}).get(metric) or {}
        if estimate.get("mean") is None:
            return "–"
        if estimate.get("ci_low") is None:
            return f"{estimate['mean']:{sign}.3f}"
        return f"{estimate['mean']:{sign}.3f} [{estimate['ci_low']:{sign}.3f}, {estimate['ci_high']:{sign}.3f}]"

    floors = {
        name: table[kind][scope][metric]["mean"]
        for name, table in results["floors"].items()
        if table.get(kind, {}).get(scope, {}).get(metric, {}).get("mean") is not None
    }
    best = max(floors, key=lambda name: floors[name], default=None)
    tuned = results["systems"]["tuned"]
    cells = [
        f"**{scope}, all**" if kind == "groups" else scope,
        f"{tuned[kind][scope][metric]['n']:d}",
        value(results["systems"].get("base", {})),
        value(tuned),
        value(results["deltas"], "+"),
        f"{floors[best]:.3f} ({escaped(best)})" if best else "–",
    ]
    return f"| {' | '.join(cells)} |"


def _training(config: Config, manifest: FinishedManifest) -> str:
    training = {key: config.training[key] for key in HYPERPARAMETERS if config.training.get(key) is not None}
    values = {
        "training rows": manifest.rows.train,
        "optimizer steps": manifest.steps,
        **training,
        **{f"lora.{key}": value for key, value in (config.lora or {}).items() if value is not None},
        "base weights while training": json.dumps(config.quantization or f"dtype {config.model.dtype}").strip('"'),
        "balance of categories": config.data.balance.model_dump_json(exclude_none=True)
        if config.data.balance
        else "none",
    }
    rows = [f"| {key} | {escaped(str(value))} |" for key, value in values.items()]
    return "\n".join(["## Training", "", "| setting | value |", "|---|---|", *rows])


def _limits(manifest: FinishedManifest) -> str:
    rows = manifest.rows
    lost = {fate: sum(counts.get(fate, 0) for counts in rows.truncation.values()) for fate in
            ("context shortened", "end cut off", "dropped")}  # fmt: skip
    too_long = ", ".join(f"{count} {fate}" for fate, count in lost.items() if count) or "none"
    return "\n".join(
        [
            "## Limits",
            "",
            f"- One training with one seed, on {rows.train} rows (too long for the length limit: {too_long}).",
            "- Japanese instructions only; other languages were not trained and not tried.",
            "- It states wrong facts fluently, about a context as well; check what matters.",
            "- It was not aligned for safety: it has whatever the base model and the data taught it.",
            "- Single questions: it knows no conversation and no system message.",
        ]
    )


def _made(manifest: FinishedManifest, checked: Sequence[str]) -> str:
    environment = manifest.environment
    packages = ", ".join(f"{name} {version}" for name, version in environment.packages.items())
    commit = f", this project's git commit `{environment.git_commit}`" if environment.git_commit else ""
    since = " since it was last resumed" if manifest.resumed else ""
    lines = [
        "## How it was made",
        "",
        f"- {manifest.seconds:,.0f} s{since} on {manifest.device}, finished {manifest.finished[:10]}{commit}.",
        f"- Python {environment.python}, {packages}.",
        f"- SHA-256 of the data's usable rows: `{manifest.identity.data}`.",
        *(f"- {line[0].upper()}{line[1:]}." for line in checked),
    ]
    return "\n".join(lines)


def _fenced(text: str, language: str = "") -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip(chr(10))}\n{fence}"
