"""vLLM's CPU build as the benchmarks drive it; runs in the peers' environment: peer_vllm.py FOLDER [--eager]

One line of JSON in, one out, as peer_transformers.py. The offline API, so without HTTP. Compiled unless --eager.
"""

import json
import os
import sys
import time

replies = os.fdopen(os.dup(1), "w")  # libraries may print to standard output
os.dup2(2, 1)

from vllm import LLM, SamplingParams
from vllm.inputs import TokensPrompt


def main():
    import random
    rng = random.Random(1)
    llm = LLM(model=sys.argv[1], dtype="bfloat16", skip_tokenizer_init=True, enforce_eager="--eager" in sys.argv,
              max_model_len=2048, max_num_seqs=64, enable_prefix_caching=False, disable_log_stats=False)
    vocabulary = llm.model_config.get_vocab_size() if hasattr(llm, "model_config") else 49152
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        prompts = [TokensPrompt(prompt_token_ids=[rng.randrange(3, vocabulary) for _ in range(command["prompt"])])
                   for _ in range(command["batch"])]
        sampling = SamplingParams(temperature=0, max_tokens=command["output"], min_tokens=command["output"],
                                  ignore_eos=True, detokenize=False)
        begin = time.perf_counter()
        outputs = llm.generate(prompts, sampling, use_tqdm=False)
        end = time.perf_counter()
        if any(len(output.outputs[0].token_ids) != command["output"] for output in outputs):
            raise SystemExit("vLLM gave another number of tokens than asked for")
        first = [output.metrics.first_token_ts for output in outputs]
        last = [output.metrics.last_token_ts for output in outputs]
        reply = {"seconds": end - begin, "prefill_seconds": end - begin - (max(last) - min(first)),
                 "decode_seconds": max(b - a for a, b in zip(first, last))}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
