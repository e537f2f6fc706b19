"""captum's integrated gradients on a transformers model, as a plain implementation writes them: peer_captum.py MODEL.gguf

First a line {"pairs", "mask"} as attribution_worker prints it, then per line {"steps"} one of
{"seconds", "scores", "completeness"}. float32, all cores; each answer is a sequence of its own, the points of a path are
one batch.
"""

import json
import os
import pathlib
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
replies = os.fdopen(os.dup(1), "w")  # libraries may print to standard output
os.dup2(2, 1)

import torch
from captum.attr import IntegratedGradients
from transformers import AutoModelForCausalLM


def margin_of(model, embed, pair):
    """F of prompt embeddings [batch, length, hidden]: log p(preferred) - log p(dispreferred), nats."""
    answers = [(torch.tensor(pair["preferred"]), 1.0), (torch.tensor(pair["dispreferred"]), -1.0)]

    def margin(prompts):
        total = 0
        for answer, sign in answers:
            rows = torch.cat([prompts, embed(answer).expand(prompts.shape[0], -1, -1)], 1)
            logits = model(inputs_embeds=rows, use_cache=False).logits
            begin = prompts.shape[1] - 1
            log_probs = torch.log_softmax(logits[:, begin:begin + len(answer)], -1)
            total = total + sign * log_probs.gather(2, answer.expand(prompts.shape[0], -1).unsqueeze(2)).sum((1, 2))
        return total

    return margin


def main():
    torch.set_num_threads(os.cpu_count())
    path = pathlib.Path(sys.argv[1])
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    model.requires_grad_(False)
    embed = model.get_input_embeddings()
    work = json.loads(sys.stdin.readline())
    mask = embed(torch.tensor([work["mask"]]))
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        steps = json.loads(line)["steps"]
        scores, completeness = [], []
        begin = time.perf_counter()
        for pair in work["pairs"]:
            prompt = embed(torch.tensor([pair["prompt"]]))
            baseline = prompt.clone()
            baseline[0, pair["candidates"]] = mask
            margin = margin_of(model, embed, pair)
            attributions = IntegratedGradients(margin).attribute(prompt, baseline, n_steps=steps, method="gausslegendre")
            per_token = attributions[0].sum(-1)
            with torch.no_grad():
                difference = (margin(prompt) - margin(baseline)).item()
            scores.append(per_token[pair["candidates"]].tolist())
            completeness.append(abs(per_token.sum().item() - difference) / max(abs(difference), 0.5))
        reply = {"seconds": time.perf_counter() - begin, "scores": scores, "completeness": completeness}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
