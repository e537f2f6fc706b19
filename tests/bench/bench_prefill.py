"""Prompt tokens per second of one prompt, without a cached prefix, against llama.cpp and transformers, in turn; and the
share of this machine's fastest bfloat16 matrix products.
"""

import argparse
import statistics
import time

import environment
import stats
import workers

PEERS = ("llama.cpp", "transformers")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=environment.default_model(), help="GGUF file")
    parser.add_argument("--tokens", default="128,512,2048", help="lengths of the prompt, comma-separated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="file,bfloat16", help="of Trimtab, comma-separated")
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated; none for none")
    options = parser.parse_args()
    options.tokens = [int(tokens) for tokens in options.tokens.split(",")]
    options.precision = options.precision.split(",")
    options.peers = [] if options.peers == "none" else options.peers.split(",")
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"unknown peers: {', '.join(sorted(unknown))}")
    return options


def operations(info, tokens):
    """Multiplications and additions of a prompt's pass through the blocks. The output head sees one token: left out."""
    attention = 4 * info["attention_width"] * info["layers"] * (tokens + 1) / 2  # per token: scores and sums, causal
    return tokens * (2 * info["block_parameters"] + attention)


def main():
    options = arguments()
    environment.warn_if_busy()
    limits = environment.machine_limits()
    arms = {f"trimtab {precision}": workers.Engine(options.model, precision) for precision in options.precision}
    if "llama.cpp" in options.peers:
        arms["llama.cpp"] = workers.LlamaPrograms(options.model)
    if "transformers" in options.peers:
        arms["transformers"] = workers.transformers(options.model)
    rates = {name: {tokens: [] for tokens in options.tokens} for name in arms}
    try:
        for arm in arms.values():
            arm.prefill(min(options.tokens))  # warm
        for turn in range(options.rounds):
            names = list(arms) if turn % 2 == 0 else list(reversed(arms))
            for tokens in options.tokens:
                for name in names:
                    time.sleep(0.3)  # the one before may still spin
                    rates[name][tokens].append(arms[name].prefill(tokens))
            environment.say(f"round {turn + 1} of {options.rounds} done")
    finally:
        for arm in arms.values():
            arm.close()
    limits = environment.machine_limits(limits)

    print(f"\n{environment.machine_line()}; median of {options.rounds}\n")
    print(stats.table(["tokens/s with a prompt of", *options.tokens],
                      [[name, *(f"{statistics.median(by_length[tokens]):.0f}" for tokens in options.tokens)]
                       for name, by_length in rates.items()]))
    rows = []
    for tokens in options.tokens:
        for precision in options.precision:
            for peer in options.peers:
                target = "3 x" if (peer, tokens) == ("llama.cpp", 512) else ""
                rows.append([f"{tokens} tokens: {precision} / {peer}",
                             *stats.ratio_cells(rates[f"trimtab {precision}"][tokens], rates[peer][tokens]), target])
    if rows:
        print("\n" + stats.table(["ratio", "median", "95 %", "at least"], rows))
    rows = []
    for precision in options.precision:
        arm = f"trimtab {precision}"
        for tokens in options.tokens:
            rate = statistics.median(rates[arm][tokens]) * operations(arms[arm].info, tokens) / tokens
            rows.append([f"{tokens} tokens, {precision}", f"{rate / 1e9:.0f}", f"{limits['bf16_gemm_flops'] / 1e9:.0f}",
                         f"{rate / limits['bf16_gemm_flops']:.2f}", "0.7" if tokens == 512 else ""])
    print("\n" + stats.table(["matrix products", "GFLOP/s", "of bf16 peak", "share", "at least"], rows))


if __name__ == "__main__":
    main()
