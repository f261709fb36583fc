"""What training, answering and evaluation share: configuration, data, prompts, tokens, models, runs."""

import logging
import warnings

__version__ = "0.2.0"
"""The project's version, also of the installed package."""

# Noise about what no user of this project can change: bitsandbytes on CPUs (an optional kernel package, and a line a
# layer about int8 passing through fp16), and names that peft and trl still use and transformers is going to retire.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
# A resumed run may log, save and validate in other steps than its checkpoint says.
logging.getLogger("transformers.trainer_utils").addFilter(lambda record: "trainer_state.json" not in str(record.msg))
warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
