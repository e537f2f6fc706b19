"""Integrated gradients over preference pairs against a plain Python implementation (captum and transformers) on the same
cores, in turn: seconds, how far the scores are apart, and the share of this machine's fastest bfloat16 matrix products.
"""

import argparse
import json
import statistics

import environment
import stats
import workers


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=environment.default_model(), help="GGUF file")
    parser.add_argument("--pairs", default=environment.program("deploy/examples/pairs/formal.train.jsonl"),
                        help="JSON lines with prompt, preferred and dispreferred")
    parser.add_argument("--max_pairs", type=int, default=50)
    parser.add_argument("--steps", type=int, default=20, help="points of the Gauss-Legendre rule")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto,float32", help="of Trimtab, comma-separated")
    options = parser.parse_args()
    options.precision = options.precision.split(",")
    return options


def operations(info, steps):
    """Multiplications and additions of packed passes with gradients of their inputs: the blocks forward and back for
    each token, the head forward and back for each token of an answer (the count of docs/performance.md)."""
    total = 0
    for pair in info["pairs"]:
        answers = len(pair["preferred"]) + len(pair["dispreferred"])
        tokens = len(pair["prompt"]) + answers - 2
        attention = 4 * info["attention_width"] * (tokens + 1) / 2
        total += tokens * 2 * (2 * info["block_parameters"] + attention) + answers * 4 * info["head_parameters"]
    return total * steps


def largest_difference(ours, theirs):
    return max(abs(a - b) for mine, other in zip(ours, theirs) for a, b in zip(mine, other))


def main():
    options = arguments()
    environment.warn_if_busy()
    limits = environment.machine_limits()
    arms = {}
    try:
        for precision in options.precision:
            arms[f"trimtab {precision}"] = workers.Attribution(options.model, precision, options.pairs, options.max_pairs)
        info = next(iter(arms.values())).info
        arms["captum"] = workers.Captum(options.model, info)
        seconds, last = {name: [] for name in arms}, {}
        for turn in range(options.rounds):
            for name in list(arms) if turn % 2 == 0 else list(reversed(arms)):
                last[name] = arms[name].run(options.steps)
                seconds[name].append(last[name]["seconds"])
            environment.say(f"round {turn + 1} of {options.rounds}: " +
                            ", ".join(f"{name} {values[-1]:.1f} s" for name, values in seconds.items()))
    finally:
        for arm in arms.values():
            arm.close()
    limits = environment.machine_limits(limits)

    print(f"\n{environment.machine_line()}; {len(info['pairs'])} pairs, {options.steps} points, "
          f"median of {options.rounds}\n")
    rows = []
    for name, values in seconds.items():
        rate = operations(info, options.steps) / statistics.median(values)
        difference = largest_difference(last[name]["scores"], last["captum"]["scores"])
        rows.append([name, f"{statistics.median(values):.1f}", f"{rate / limits['bf16_gemm_flops']:.2f}",
                     f"{difference:.1e}", f"{statistics.median(last[name]['completeness']):.3f}"])
    print(stats.table(["integrated gradients", "s", "of bf16 peak", "largest difference to captum, nats",
                       "median completeness error"], rows))
    rows = [[f"captum / {name}", *stats.ratio_cells(seconds["captum"], seconds[name]), "10 x" if "auto" in name else ""]
            for name in arms if name != "captum"]
    print("\n" + stats.table(["ratio", "median", "95 %", "at least"], rows))


if __name__ == "__main__":
    main()
