"""LLaMA-Factory trains the rows of `benchmarks.training`, in a Python of its own, which knows nothing of `sft`.

    scratch/llama-factory/bin/python -m benchmarks.llama_factory DIRECTORY MAX_LENGTH

DIRECTORY holds `model`, `adapter` and `rows.json`, a list of input_ids and labels (`benchmarks.elsewhere`). Its own
packing (neat_packing), collator, LoRA and trainer, all bins in one optimizer step, twice. Prints what
`benchmarks.training` measures.
"""

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

# LLaMA-Factory imports it for sound, whatever is trained, and its wheels fit few builds of PyTorch.
sys.modules["torchaudio"] = ModuleType("torchaudio")
sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from llamafactory.data.processor import PackedSupervisedDatasetProcessor  # noqa: E402
from llamafactory.hparams import DataArguments  # noqa: E402
from llamafactory.train.tuner import run_exp  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

from benchmarks.clock import Clock, Memory, measured  # noqa: E402


class Packing(PackedSupervisedDatasetProcessor):
    """Its packing, of rows that are encoded already."""

    def _encode_data_example(self, prompt: Any, response: Any, *nothing: Any, **none: Any) -> Any:
        return prompt[0], response[0]


class LoadedClock(Clock):
    """Counts memory from the loaded model on, too."""

    memory: Memory

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for weight in kwargs["model"].parameters():
            weight.sum()  # those of a file that is mapped are in memory from their first use on
        self.memory = Memory()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.history = state.log_history


def pack(directory: Path, rows: list[dict[str, list[int]]], max_length: int) -> int:
    """Write the bins where LLaMA-Factory looks for data that is tokenized; returns how many they are."""
    data = DataArguments(cutoff_len=max_length, packing=True, neat_packing=True)
    tokenizer = AutoTokenizer.from_pretrained(directory / "model")
    nothing: list[Any] = [None] * len(rows)
    examples = {
        "_prompt": [[row["input_ids"]] for row in rows], "_response": [[row["labels"]] for row in rows],
        **dict.fromkeys(("_system", "_tools", "_images", "_videos", "_audios"), nothing),
    }  # fmt: skip
    packing = Packing(template=None, tokenizer=tokenizer, processor=None, data_args=data)
    bins = Dataset.from_dict(dict(packing.preprocess_dataset(examples)))
    bins.save_to_disk(directory / "bins")
    return len(bins)


def main() -> None:
    """Pack, train, print."""
    torch.set_num_threads(1)
    directory, max_length = Path(sys.argv[1]), int(sys.argv[2])
    rows = json.loads((directory / "rows.json").read_text(encoding="utf-8"))
    bins = pack(directory, rows, max_length)
    dtype = json.loads((directory / "model/config.json").read_text(encoding="utf-8"))["dtype"]
    clock = LoadedClock()
    arguments = {
        "stage": "sft", "do_train": True, "model_name_or_path": str(directory / "model"), "template": "empty",
        "finetuning_type": "lora", "adapter_name_or_path": str(directory / "adapter"),
        "disable_gradient_checkpointing": True,
        "dataset": "rows", "tokenized_path": str(directory / "bins"), "cutoff_len": max_length,
        "packing": True, "neat_packing": True,
        "per_device_train_batch_size": 1, "gradient_accumulation_steps": bins, "num_train_epochs": 2,
        "use_cpu": True, "bf16": dtype == "bfloat16",
        "output_dir": str(directory / "output"), "logging_steps": 1, "save_strategy": "no", "report_to": "none",
        "dataloader_pin_memory": False, "disable_tqdm": True,
    }  # fmt: skip
    run_exp(arguments, [clock])
    print(json.dumps(measured(clock, clock.memory, clock.history, sum(len(row["input_ids"]) for row in rows))))


if __name__ == "__main__":
    main()
