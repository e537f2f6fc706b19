"""transformers as the benchmarks drive it; runs in the peers' environment: peer_transformers.py FOLDER

One line of JSON in, one out: {"batch", "prompt", "output"} -> {"seconds", "prefill_seconds", "decode_seconds"}. Greedy,
bfloat16, all cores; prompts are random tokens of equal length, so nothing is padded.
"""

import json
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
replies = os.fdopen(os.dup(1), "w")  # libraries may print to standard output
os.dup2(2, 1)

import torch
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList


class TokenTimes(StoppingCriteria):
    """Notes when each token was there; never stops."""

    def __init__(self):
        self.times = []

    def __call__(self, input_ids, scores, **unused):
        self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def main():
    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    model.generation_config.eos_token_id = None
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        prompt = torch.randint(0, model.config.vocab_size, (command["batch"], command["prompt"]))
        times = TokenTimes()
        begin = time.perf_counter()
        with torch.inference_mode():
            model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=command["output"],
                           min_new_tokens=command["output"], do_sample=False, pad_token_id=0, eos_token_id=None,
                           stopping_criteria=StoppingCriteriaList([times]))
        end = time.perf_counter()
        reply = {"seconds": end - begin, "prefill_seconds": times.times[0] - begin,
                 "decode_seconds": times.times[-1] - times.times[0], "tokens": len(times.times)}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
