"""What steering costs: waves of equal requests through the engine in one process, steered in different ways, in turn.

A setting is an objective (a vector of random directions) and a strength. With K settings a wave's requests go through
them in order, so that 256 settings take eight waves of 32 and every slot of the bank. "Unsteered again" is the
noise: the same arm twice.
"""

import argparse
import math
import statistics

import environment
import stats
import workers

KS = (1, 4, 16, 64, 256)


def arms(quick):
    """name -> (settings, objectives per request, layers, objectives); None is not steered."""
    result = {"unsteered": None, "unsteered again": None}
    for k in KS:
        result[f"K = {k}"] = (k, 1, "all", "many")
    result["one objective, 256 strengths"] = (256, 1, "all", "one")
    result["3 objectives per request, K = 256"] = (256, 3, "all", "many")
    if not quick:
        result["one layer, K = 1"] = (1, 1, "one", "many")
        result["one layer, K = 256"] = (256, 1, "one", "many")
        result["one layer, 3 objectives, K = 256"] = (256, 3, "one", "many")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=environment.default_model(), help="GGUF file or Hugging Face folder")
    parser.add_argument("--precision", default="auto", help="as the server's")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=16, help="tokens of each prompt")
    parser.add_argument("--output", type=int, default=48, help="tokens of each answer")
    parser.add_argument("--rounds", type=int, default=8, help="waves of each kind")
    parser.add_argument("--quick", action="store_true", help="leave out steering at one layer")
    options = parser.parse_args()
    environment.warn_if_busy()

    engine = workers.Engine(options.model, options.precision)
    names = arms(options.quick)
    waves = {name: [] for name in names}
    try:
        engine.wave(options.batch, options.prompt, 8)  # warm
        for turn in range(options.rounds):
            order = list(names)
            order = order[turn % len(order):] + order[:turn % len(order)]
            for name in order if turn % 2 == 0 else reversed(order):
                steering = names[name]
                waves[name].append(engine.wave(options.batch, options.prompt, options.output,
                                               *((*steering, turn) if steering else ())))
            environment.say(f"round {turn + 1} of {options.rounds} done")
    finally:
        engine.close()

    tokens = options.batch * options.output
    rates = {name: [tokens / wave["seconds"] for wave in runs] for name, runs in waves.items()}
    steps = {name: [wave["step_seconds"] for wave in runs] for name, runs in waves.items()}
    print(f"\n{environment.machine_line()}; {engine.info['precision']}, batch {options.batch}, prompt {options.prompt}, "
          f"output {options.output}, {options.rounds} rounds\n")
    rows = []
    for name in names:
        if name == "unsteered":
            ratio = ("1", "", "")
        else:
            # The unsteered step's time by this one's, so that it reads like the rates. A wave in which the requests
            # were never all decoding at once has no such step.
            both = [(plain, own) for plain, own in zip(steps["unsteered"], steps[name]) if plain and own]
            step = f"{statistics.median(plain / own for plain, own in both):.3f}" if both else ""
            ratio = (*stats.ratio_cells(rates[name], rates["unsteered"], 3), step)
        rows.append([name, f"{statistics.median(rates[name]):.1f}", *ratio,
                     f"{statistics.median(steps[name]) * 1e3:.2f}",
                     f"{statistics.median(wave['steering_share'] for wave in waves[name]):.2%}"])
    print(stats.table(["steering", "tokens/s", "of unsteered", "95 %", "decode step", "ms per step", "in steering"], rows))

    # Per doubling of K, relative to the round's own mean, so that the machine's drift cancels.
    doublings = [math.log2(k) for k in KS]
    relative = []
    for turn in range(options.rounds):
        values = [rates[f"K = {k}"][turn] for k in KS]
        relative.append([value / statistics.fmean(values) for value in values])
    slope, half = stats.slope_interval(doublings, relative)
    print(f"\nslope from K = 1 to {KS[-1]}: {slope:+.3%} of the rate per doubling of K (95 %: {slope - half:+.3%} to "
          f"{slope + half:+.3%}), {'within' if abs(slope) <= half else 'beyond'} the noise")


if __name__ == "__main__":
    main()
