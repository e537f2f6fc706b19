"""Tokens per second of decoding against llama.cpp, vLLM's CPU build and transformers; greedy, equal lengths, in turn.

Each engine measures itself from its first token on. In the processes: Trimtab's engine, llama.cpp (llama-bench for one
sequence, llama-batched-bench for more), vLLM's and transformers' own Python interfaces. Over the network on this machine:
Trimtab's server (gRPC) and llama-server (HTTP). The first run builds and installs the peers, which takes long.
"""

import argparse
import json
import statistics
import time

import environment
import stats
import workers

PEERS = ("llama.cpp", "llama-server", "vllm", "transformers")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=environment.default_model(), help="GGUF file")
    parser.add_argument("--batch", default="1,4,8,16,32", help="sequences at once, comma-separated")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of each prompt")
    parser.add_argument("--output", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind; raise it for intervals")
    parser.add_argument("--precision", default="file,bfloat16", help="of Trimtab, comma-separated")
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated; none for none")
    parser.add_argument("--eager", action="store_true", help="vLLM without compilation: starts faster, runs slower")
    parser.add_argument("--json", help="also write every measurement to this file")
    options = parser.parse_args()
    options.batch = [int(batch) for batch in options.batch.split(",")]
    options.precision = options.precision.split(",")
    options.peers = [] if options.peers == "none" else options.peers.split(",")
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"unknown peers: {', '.join(sorted(unknown))}")
    return options


def make_arms(options, arms):
    """Starts what is compared: name -> process into `arms`, in the order of the table."""
    for precision in options.precision:
        arms[f"trimtab {precision}"] = workers.Engine(options.model, precision)
        arms[f"trimtab server {precision}"] = workers.TrimtabServer(options.model, precision)
    if "llama.cpp" in options.peers:
        arms["llama.cpp"] = workers.LlamaPrograms(options.model)
    if "llama-server" in options.peers:
        arms["llama-server"] = workers.LlamaServer(options.model, max(options.batch), options.prompt + options.output + 16)
    if "vllm" in options.peers:
        arms["vllm"] = workers.vllm(options.model, options.eager)
    if "transformers" in options.peers:
        arms["transformers"] = workers.transformers(options.model)


def measure(arms, options):
    """rates[arm][batch]: tokens per second, one per round. Neighbours in time share the machine's state."""
    rates = {name: {batch: [] for batch in options.batch} for name in arms}
    for arm in arms.values():
        arm.decode(max(options.batch), options.prompt, 8)  # warm
    names = list(arms)
    for turn in range(options.rounds):
        for batch in options.batch:
            for name in names[turn % len(names):] + names[:turn % len(names)]:
                time.sleep(0.3)  # the one before may still spin
                rates[name][batch].append(arms[name].decode(batch, options.prompt, options.output))
            environment.say(f"round {turn + 1} of {options.rounds}, batch {batch}: " +
                            ", ".join(f"{name} {rates[name][batch][-1]:.0f}" for name in names))
    return rates


def pairs(arms, options):
    """(batch, ours, theirs, target or None): what is compared with what."""
    for batch in options.batch:
        for precision in options.precision:
            targets = {("llama.cpp", 1, "file"): 1.2, ("vllm", 8, "file"): 3, ("vllm", 8, "bfloat16"): 1.7,
                       ("llama-server", 16, "file"): 3}
            for peer in PEERS:
                ours = f"trimtab {'server ' if peer == 'llama-server' else ''}{precision}"
                if peer in arms:
                    yield batch, ours, peer, targets.get((peer, batch, precision))


def main():
    options = arguments()
    environment.warn_if_busy()
    limits = environment.machine_limits()
    arms = {}
    try:
        make_arms(options, arms)
        rates = measure(arms, options)
        infos = {precision: arms[f"trimtab {precision}"].info for precision in options.precision}
    finally:
        for arm in arms.values():
            arm.close()
    limits = environment.machine_limits(limits)
    print(f"\n{environment.machine_line()}; prompt {options.prompt}, output {options.output}, median of {options.rounds}\n")
    print(stats.table(["tokens/s at batch", *options.batch],
                      [[name, *(f"{statistics.median(by_batch[batch]):.1f}" for batch in options.batch)]
                       for name, by_batch in rates.items()]))
    rows = []
    for batch, ours, theirs, target in pairs(arms, options):
        rows.append([f"batch {batch}: {ours} / {theirs}", *stats.ratio_cells(rates[ours][batch], rates[theirs][batch]),
                     f"{target} x" if target else ""])
    if rows:
        print("\n" + stats.table(["ratio", "median", "95 %", "at least"], rows))
    bandwidth = limits["read_bytes_per_second"]
    rows = []
    if 1 in options.batch:
        for precision, info in infos.items():
            rate = statistics.median(rates[f"trimtab {precision}"][1])
            rows.append([f"batch 1, {precision}: {info['weight_bytes'] / 1e6:.0f} MB of weights per token",
                         f"{rate * info['weight_bytes'] / 1e9:.1f}", f"{bandwidth / 1e9:.1f}",
                         f"{rate * info['weight_bytes'] / bandwidth:.2f}", "0.6"])
        print("\n" + stats.table(["memory", "GB/s", "of", "share", "at least"], rows))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"machine": environment.machine_line(), "limits": limits, "rates": rates}, file, indent=1)


if __name__ == "__main__":
    main()
