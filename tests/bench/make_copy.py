"""Writes a GGUF model as a Hugging Face folder in bfloat16: make_copy.py MODEL.gguf FOLDER [GOLDEN.jsonl]

Runs in the peers' environment. transformers de-quantises, as it did for the goldens of the model's tests; when GOLDEN
(prompts and greedy tokens of the same file, in float32) is given and fits the vocabulary, the copy must reproduce it.
"""

import json
import os
import pathlib
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoModelForCausalLM

SHIPPED = "SmolLM2-135M-Instruct.Q4_1.gguf"
CHECKED_PROMPTS, CHECKED_TOKENS = 3, 16


def main():
    source, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32).eval()
    if len(sys.argv) > 3 and source.name == SHIPPED:
        lines = pathlib.Path(sys.argv[3]).read_text().splitlines()[:CHECKED_PROMPTS]
        for line in lines:
            golden = json.loads(line)
            prompt = torch.tensor([golden["prompt"]])
            with torch.no_grad():
                out = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=CHECKED_TOKENS,
                                     min_new_tokens=CHECKED_TOKENS, do_sample=False, pad_token_id=0, eos_token_id=None)
            if out[0, prompt.shape[1]:].tolist() != golden["tokens"][:CHECKED_TOKENS]:
                raise SystemExit(f"the copy of {source.name} differs from the golden after {golden['prompt']}")
    # A model that was read from GGUF refuses to be saved; its twin, filled with the same weights, does not.
    config = type(model.config).from_dict({
        key: value for key, value in model.config.to_dict().items() if key != "quantization_config"})
    twin = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    twin.load_state_dict(model.state_dict())
    twin.save_pretrained(folder)


if __name__ == "__main__":
    main()
