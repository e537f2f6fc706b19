"""Time to the first token of a prompt whose beginning is in the prefix cache, against one that is new; real server, in
turn, by the client's clock.
"""

import argparse
import statistics
import time

import environment
import stats
import workers


def time_to_first_token(server, prompt):
    """(seconds, cached prompt tokens)."""
    begin = time.perf_counter()
    stream = server.generation.StreamGenerate(server.request(prompt, 2))
    next(stream)
    seconds = time.perf_counter() - begin
    for last in stream:
        pass
    return seconds, last.usage.cached_prompt_tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=environment.default_model(), help="GGUF file or Hugging Face folder")
    parser.add_argument("--precision", default="auto", help="as the server's")
    parser.add_argument("--prefix", type=int, default=1000, help="tokens that prompts share")
    parser.add_argument("--rest", type=int, default=24, help="tokens after them that differ")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    environment.warn_if_busy()

    server = workers.TrimtabServer(options.model, options.precision)
    cold, warm, cached = [], [], []
    try:
        shared = server.prompt(options.prefix)
        time_to_first_token(server, server.prompt(options.rest, shared))
        for turn in range(options.rounds):
            for kind in ("cold", "warm") if turn % 2 == 0 else ("warm", "cold"):
                prefix = shared if kind == "warm" else server.prompt(options.prefix)
                seconds, tokens = time_to_first_token(server, server.prompt(options.rest, prefix))
                if kind == "warm":
                    warm.append(seconds)
                    cached.append(tokens)
                elif tokens == 0:
                    cold.append(seconds)
                else:
                    raise RuntimeError(f"{tokens} tokens of a prompt that should be new were cached")
    finally:
        server.close()
    ratio, low, high = stats.paired_ratio(warm, cold)
    print(f"\n{environment.machine_line()}; {options.rounds} rounds, {options.prefix} + {options.rest} tokens\n")
    print(stats.table(
        ["time to first token", "p50 ms", "p99 ms", "cached tokens"],
        [["new prompt", *(f"{stats.percentile(cold, q) * 1e3:.1f}" for q in (50, 99)), 0],
         ["cached prefix", *(f"{stats.percentile(warm, q) * 1e3:.1f}" for q in (50, 99)),
          int(statistics.median(cached))]]))
    print(f"\ncached / new: {ratio:.3f} (95 %: {low:.3f} to {high:.3f}); at most 0.15")


if __name__ == "__main__":
    main()
