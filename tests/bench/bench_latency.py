"""Latency of the real server under an open-loop Poisson load, with and without a fit running, with and without long
prompts arriving. The four ways are run in turn, round after round, each round with the same arrivals.
"""

import argparse
import json
import statistics
import time

import environment
import load
import stats
import workers
from google.longrunning import operations_pb2, operations_pb2_grpc
from trimtab.v1 import common_pb2, objective_pb2, objective_pb2_grpc


class Fit:
    """A fit that runs while a load does: the shipped pairs, the server's own defaults; cancelled at the end."""

    def __init__(self, server, number):
        self.operations = operations_pb2_grpc.OperationsStub(server.channel)
        request = objective_pb2.RegisterObjectiveRequest(parent="models/bench", objective_id=f"fit-{number}")
        request.objective.method = "grains"
        with open(environment.program("deploy/examples/pairs/formal.train.jsonl"), encoding="utf-8") as file:
            for line in file:
                pair = json.loads(line)
                made = request.objective.pairs.add(preferred=pair["preferred"], dispreferred=pair["dispreferred"])
                made.prompt.add(role=common_pb2.ROLE_USER, parts=[{"text": pair["prompt"]}])
        self.name = objective_pb2_grpc.ObjectiveServiceStub(server.channel).RegisterObjective(request).name
        while self._phase() <= objective_pb2.RegisterObjectiveMetadata.PHASE_QUEUED:
            time.sleep(0.05)

    def _get(self):
        return self.operations.GetOperation(operations_pb2.GetOperationRequest(name=self.name))

    def _phase(self):
        operation, metadata = self._get(), objective_pb2.RegisterObjectiveMetadata()
        if operation.done:
            raise RuntimeError(f"the fit ended before it was measured: {operation.error.message}")
        operation.metadata.Unpack(metadata)
        return metadata.phase

    def stop(self):
        """Whether it was still running."""
        running = not self._get().done
        if running:
            self.operations.CancelOperation(operations_pb2.CancelOperationRequest(name=self.name))
        while not self._get().done:
            time.sleep(0.05)
        return running


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=environment.default_model(), help="GGUF file or Hugging Face folder")
    parser.add_argument("--precision", default="auto", help="as the server's")
    parser.add_argument("--rate", type=float, default=3, help="requests per second, of 16 to 128 prompt and 16 to 80 "
                        "output tokens")
    parser.add_argument("--long_rate", type=float, default=0.3, help="long prompts per second")
    parser.add_argument("--long_tokens", type=int, default=2000, help="their length")
    parser.add_argument("--seconds", type=float, default=12, help="of each load")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--slo_ttft", type=float, default=0.5, help="seconds to the first token that count as good")
    parser.add_argument("--slo_gap", type=float, default=0.05, help="mean seconds between tokens that count as good")
    parser.add_argument("--server_flag", action="append", default=[], help="passed on to the server; may be repeated")
    return parser.parse_args()


def main():
    options = arguments()
    environment.warn_if_busy()
    ways = {"nothing else": (False, False), "a fit running": (True, False), "long prompts arriving": (False, True),
            "a fit and long prompts": (True, True)}
    streams = {name: [] for name in ways}  # [round][stream]
    latest = 0.0
    server = workers.TrimtabServer(options.model, options.precision, *options.server_flag)
    try:
        load.run(server, load.schedule(0, options.rate, 2))  # warm
        for turn in range(options.rounds):
            for name in list(ways) if turn % 2 == 0 else reversed(ways):
                with_fit, with_long = ways[name]
                arrivals = load.schedule(100 + turn, options.rate, options.seconds, options.long_rate if with_long else 0,
                                         options.long_tokens)
                fit = Fit(server, f"{turn}-{list(ways).index(name)}") if with_fit else None
                run, late = load.run(server, arrivals)
                if fit is not None and not fit.stop():
                    environment.say("WARNING: the fit ended before the load: shorten --seconds")
                streams[name].append(run)
                latest = max(latest, late)
            environment.say(f"round {turn + 1} of {options.rounds} done")
    finally:
        server.close()

    print(f"\n{environment.machine_line()}; {options.rate:g} requests/s, {options.rounds} x {options.seconds:g} s each way; "
          f"requests were sent at most {latest * 1e3:.0f} ms late\n")
    rows = []
    for name, rounds in streams.items():
        flat = [stream for run in rounds for stream in run if not stream.long]
        first = [stream.time_to_first_token for stream in flat if not stream.error]
        gaps = [gap for stream in flat for gap in stream.gaps]
        good = sum(stream.meets(options.slo_ttft, options.slo_gap) for stream in flat)
        rows.append([name, len(flat), sum(bool(stream.error) for stream in flat),
                     *(f"{stats.percentile(first, q) * 1e3:.0f}" for q in (50, 99)),
                     *(f"{stats.percentile(gaps, q) * 1e3:.1f}" for q in (50, 99)),
                     f"{good / (options.rounds * options.seconds):.2f}"])
    print(stats.table(["load, and", "requests", "errors", "TTFT p50 ms", "p99", "ITL p50 ms", "p99", "goodput/s"], rows))

    def p99(name):
        return [stats.percentile([gap for stream in run if not stream.long for gap in stream.gaps], 99)
                for run in streams[name]]

    print()
    for name, base, limit in (("a fit running", "nothing else", "at most 1.25"),
                              ("long prompts arriving", "nothing else", ""),
                              ("a fit and long prompts", "long prompts arriving", "")):
        ratio, low, high = stats.paired_ratio(p99(name), p99(base))
        print(f"p99 inter-token latency, {name} / {base}: {ratio:.2f} (95 %: {low:.2f} to {high:.2f})"
              f"{'; ' + limit if limit else ''}")
    long = [stream.time_to_first_token for name in ways for run in streams[name] for stream in run
            if stream.long and not stream.error]
    if long:
        print(f"time to first token of the {len(long)} long prompts: median {statistics.median(long) * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
