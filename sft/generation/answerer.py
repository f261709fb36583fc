"""What was trained, loaded to answer: base model, adapter, and the prompt template the adapter was trained with."""

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.nn import Parameter
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from sft.build_base import ensure_base
from sft.config.sections import Config
from sft.generation.ends import AnswerEnds
from sft.generation.generate import Answer, generate, generate_all, library_config
from sft.generation.pace import Watch
from sft.generation.settings import STOP_STRINGS, effective_settings
from sft.model.base_identity import BaseIdentity, base_identity
from sft.model.load import load_base
from sft.model.lora import load_adapter, merge
from sft.model.loss import add_token_nll
from sft.model.place import resolve_device, resolve_dtype, use_all_cores
from sft.prompt.encode import encode_prompt, shorten
from sft.prompt.headings import headings
from sft.prompt.shots import Shot, render_with_shots
from sft.prompt.template import CHAT_TEMPLATES, PromptTemplate, template_from_config
from sft.run.directory import settings_of
from sft.run.manifest import FinishedManifest
from sft.run.trained import Trained, read_trained
from sft.system.errors import UserError
from sft.system.files import text_sha256


class EncodedPrompt(NamedTuple):
    """A prompt as text and ids, and whether its context (earlier turns included) was shortened to fit the model.

    `shots` is how many of the examples are in it.
    """

    text: str
    ids: list[int]
    context_shortened: bool
    shots: int = 0


@dataclasses.dataclass
class Answerer:
    """Base and tuned model of one run. `generation` holds the run's generation settings, overrides applied.

    `model` is the tuned model: its adapter merged into the weights where that can be done (see `merge_adapter`), which
    then has the base's own in `base_weights`.
    """

    run: Path
    config: Config
    model: PeftModel | PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    template: PromptTemplate
    base_weights: dict[Parameter, torch.Tensor]
    identity: str
    """Hash of what it answers with: base, adapter, tokenizer, template, and how they were loaded."""
    _base: PreTrainedModel | None = None

    def __post_init__(self) -> None:
        self.generation: dict[str, Any] = self.config.generation
        self.check_room(self.generation["max_new_tokens"])

    def check_room(self, new_tokens: int) -> None:
        """Raise UserError when answers of `new_tokens` leave no room for a prompt."""
        if new_tokens >= self.context_length:
            raise UserError(
                f"{new_tokens} new tokens leave no room for a prompt in {self.context_length}; set "
                "generation.max_new_tokens to less"
            )

    def prompt(
        self,
        instruction: str,
        context: str = "",
        new_tokens: int | None = None,
        history: Sequence[tuple[str, str]] = (),
        shots: Sequence[Shot] = (),
    ) -> EncodedPrompt:
        """Encode a question, without the oldest turns and the context's end where the model's length demands it.

        `new_tokens` are left free for the answer; None: generation.max_new_tokens of the run. `history` holds the
        turns before as (role, content). Of `shots` the first ones are shown, as many as fit beside the whole question.
        Raises UserError when even the question alone does not fit.
        """
        new_tokens = new_tokens or self.generation["max_new_tokens"]
        budget = self.context_length - new_tokens
        for count in range(len(shots), 0, -1):
            prompt = render_with_shots(self.template, shots[:count], instruction, context, history)
            if len(ids := encode_prompt(self.tokenizer, prompt)) <= budget:
                return EncodedPrompt(prompt, ids, False, count)

        def render(context: str, history: Sequence[tuple[str, str]]) -> str:
            return self.template.render(instruction, context, history)

        text = render(context, history)
        ids = encode_prompt(self.tokenizer, text)
        if len(ids) <= budget:
            return EncodedPrompt(text, ids, False)
        shorter = shorten(self.tokenizer, context, history, render, budget)
        if shorter is None:
            raise UserError(
                f"the question takes {len(ids)} tokens, and {budget} fit beside {new_tokens} new tokens; shorten it"
            )
        return EncodedPrompt(render(shorter.context, shorter.history), shorter.ids, True)

    def answer(
        self,
        prompt: list[int],
        streamer: BaseStreamer | None = None,
        generation: Mapping[str, Any] | None = None,
        stopped: Callable[[], bool] | None = None,
    ) -> Answer:
        """Answer an encoded prompt under these settings (None: the run's), until `stopped` says so (see `generate`)."""
        settings, ends = generation or self.generation, headings(self.template)
        return generate(self.model, self.tokenizer, [prompt], settings, streamer, ends, stopped)[0]

    def ends(self, generation: Mapping[str, Any] | None = None) -> AnswerEnds:
        """What ends an answer by its text: the template's headings and generation.stop_strings."""
        stops = effective_settings(generation or self.generation).get(STOP_STRINGS, ())
        return AnswerEnds(self.tokenizer, headings(self.template), stops)

    def answer_all(
        self,
        prompts: Sequence[list[int]],
        settings: Sequence[Mapping[str, Any]] | None = None,
        seeds: Sequence[int] | None = None,
        watch: Watch | None = None,
    ) -> Iterator[tuple[int, int, Answer]]:
        """Answer encoded prompts under each of several generation settings (None: the run's), see `generate_all`."""
        settings, budget = settings or [self.generation], self.config.eval.batch_tokens
        return generate_all(
            self.model, self.tokenizer, prompts, settings, budget, seeds, headings(self.template), watch
        )

    @contextlib.contextmanager
    def as_system(self, system: str) -> Iterator[None]:
        """Answer as "tuned", or as "base": exactly the model that the adapter was trained on."""
        with contextlib.ExitStack() as stack:
            if system == "base" and isinstance(self.model, PeftModel):
                stack.enter_context(self.model.disable_adapter())
            elif system == "base":
                self._exchange()
                stack.callback(self._exchange)
            yield

    def _exchange(self) -> None:
        """Put the base in the tuned model's place, or back: its weights, or where all were trained another model."""
        if self.config.lora is None:
            self.model, self._base = self._base or _load(self.config), self.model
        for parameter, other in self.base_weights.items():
            self.base_weights[parameter] = parameter.data.to(other.device)
            parameter.data = other.to(parameter.device)

    @property
    def context_length(self) -> int:
        """The most tokens of prompt and answer together that the model takes."""
        return getattr(self.model.config, "max_position_embeddings", None) or self.config.training["max_length"]


class Opened(NamedTuple):
    """What was trained, opened: all that answers are made of but the weights."""

    trained: Trained
    template: PromptTemplate
    """The one to answer with."""
    base: BaseIdentity
    deviations: list[str]
    """In which ways, in words, it is asked to answer otherwise than as it was trained, as far as that is known."""

    @property
    def config(self) -> Config:
        """What it was trained with, overrides applied."""
        return self.trained.config

    @property
    def identity(self) -> str:
        """Hash of what answers: base, adapter, tokenizer, template, and how they are loaded."""
        device = resolve_device(self.config.model.device)
        dtype = resolve_dtype(self.config.model.dtype, device)
        loading = [
            self.config.model.model_dump_json(), json.dumps(self.config.quantization), device.type, str(dtype)
        ]  # fmt: skip
        return text_sha256([self.trained.learned_sha256, self.template.sha256, *map(str, self.base), *loading])


def open_run(
    run: Path, overrides: Sequence[str] = (), allow_other_template: bool = False, checkpoint: int | None = None
) -> Opened:
    """Open a finished run, or an adapter without one. `overrides` are `section.key=value` of its configuration.

    `checkpoint` is the step of one whose weights answer in place of those that the run ended with. Raises UserError
    when it is missing, unfinished or damaged, when its base model is not the one it was trained on and `overrides` name
    no other, and when they ask for another prompt template than the adapter was trained with, unless that is allowed.
    """
    trained = read_trained(run, overrides, checkpoint)
    config, template = trained.config, trained.template
    library_config(effective_settings(config.generation))  # what transformers refuses is refused before loading
    # A chat template can change with its tokenizer's settings; the text that was trained with cannot.
    same = config.prompt.template == template.name in CHAT_TEMPLATES
    asked = template if same else template_from_config(config.prompt.template, trained.tokenizer)
    deviations = [] if asked.sha256 == template.sha256 else [f"the template {asked.name} in place of {template.name}"]
    if deviations and not allow_other_template:
        differ = f"the template beside the adapter ({template.name}) and the one asked for ({asked.name}) differ"
        raise UserError(f"{run}: {differ}, and answers would suffer; --allow-other-template takes the one asked for")
    ensure_base(config.model.build, config.model.base)
    base = base_identity(config.model)
    if trained.manifest:
        deviations += _other_weights(run, trained.manifest, config, base)
    deviations += [] if checkpoint is None else [f"checkpoint {checkpoint} in place of what the run ended with"]
    return Opened(trained, asked, base, deviations)


def _other_weights(run: Path, manifest: FinishedManifest, config: Config, base: BaseIdentity) -> list[str]:
    """In which ways the base is not what was trained on. Raises UserError where nobody asked for that."""
    trained = settings_of(run)
    then = BaseIdentity(manifest.base_commit, manifest.base_sha256)
    asked = config.model.base, config.model.revision
    trained_on = trained.model.base, manifest.base_commit or trained.model.revision
    same = base == then if any(then) else asked == trained_on
    if not same and asked == trained_on:
        problem = f"is not what {run} was trained on, it changed since"
        raise UserError(f"model {config.model.base}: {problem}; restore it, or name another with model.base=…")
    found = [] if same else [f"another base model ({config.model.base})"]
    now, before = ({"model.dtype": c.model.dtype, "quantization": c.quantization} for c in (config, trained))
    return found + [f"{name} {now[name]} in place of {before[name]}" for name in now if now[name] != before[name]]


def load_answerer(opened: Opened) -> Answerer:
    """Load the model of an opened run, with its adapter. Raises UserError when a file is missing or does not fit."""
    trained, template = opened.trained, opened.template
    config = trained.config
    if resolve_device(config.model.device).type == "cpu":
        use_all_cores()
    run, tokenizer = trained.directory, trained.tokenizer
    if config.lora is None:
        return Answerer(run, config, _load(config, trained.weights), tokenizer, template, {}, opened.identity)
    model, base_weights = merge_adapter(load_adapter(_load(config), trained.weights).eval())
    return Answerer(run, config, model, tokenizer, template, base_weights, opened.identity)


def merge_adapter(model: PeftModel) -> tuple[PeftModel | PreTrainedModel, dict[Parameter, torch.Tensor]]:
    """`model` with its adapter in the weights, so that answers cost what the base's cost, and the base's own weights.

    Those are of the adapted layers only and lie in host memory. The adapter stays apart, and no weights are handed
    back, on a quantised base, where rounding the sum would change answers, and on weights that another layer uses, too.
    """
    layers = [module.get_base_layer() for module in model.modules() if isinstance(module, BaseTunerLayer)]
    adapted = [parameter for layer in layers for parameter in layer.parameters(recurse=False)]
    uses = Counter(parameter for _, parameter in model.named_parameters(remove_duplicate=False))
    quantised = getattr(model.get_base_model(), "hf_quantizer", None) is not None
    if quantised or any(uses[parameter] > 1 for parameter in adapted):
        return model, {}
    base_weights = {parameter: parameter.data.cpu() for parameter in adapted}
    return merge(model), base_weights


def _load(config: Config, trained: Path | None = None) -> PreTrainedModel:
    """The base model, or the `trained` one where all weights were, ready to answer and to measure likelihoods."""
    section = config.model
    device = resolve_device(section.device)
    dtype = resolve_dtype(section.dtype, device)
    if trained:
        model = load_base(str(trained), device, dtype, attention=section.attention, safetensors_only=True)
    else:
        model = load_base(section.base, device, dtype, config.quantization, **section.loading)
    add_token_nll(model)
    return model.eval()
