"""The processes that the benchmarks compare: Trimtab's engine and server, llama.cpp's programs, and the peers that run
on PyTorch. All stay loaded and idle while another one is measured.
"""

import concurrent.futures
import http.client
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import tempfile
import threading
import time

import grpc

import environment
from trimtab.v1 import generation_pb2, generation_pb2_grpc, model_pb2, model_pb2_grpc

# Words that are one token each, with the space before them, in the vocabularies of the models that are measured; a
# prompt's length is checked with the server all the same.
WORDS = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend "
    "father power hour game line end member law car city community name president team minute idea body information "
    "back parent face others level office door health person art war history party result change morning reason "
    "research girl guy moment air teacher force education").split()


class JsonWorker:
    """A process that answers each line with one line of JSON. `ready` waits for its first, unasked line."""

    def __init__(self, command, log_name, env=None, ready=False):
        self.log = environment.cache() / f"{log_name}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                                            env={**os.environ, **(env or {})})
        if ready:
            self._read()

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args[0]} ended; the last lines of {self.log}:\n" +
                               "\n".join(self.log.read_text(errors="replace").splitlines()[-8:]))
        return json.loads(line)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._read()

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Engine(JsonWorker):
    """Trimtab's engine in a process of its own, without a server."""

    def __init__(self, model, precision, kv_cache_mib=512):
        super().__init__([environment.program("tests/bench/engine_worker"), f"--model={model}",
                          f"--precision={precision}", f"--kv_cache_mib={kv_cache_mib}"], f"engine-{precision}",
                         env={"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"})
        self.info = self.ask("info")

    def wave(self, batch, prompt, output, *steering):
        return self.ask(" ".join(map(str, ("wave", batch, prompt, output, *steering))))

    def decode(self, batch, prompt, output):
        """Tokens per second from the first token on."""
        return batch * (output - 1) / self.wave(batch, prompt, output)["decode_seconds"]

    def prefill(self, tokens):
        """Prompt tokens per second."""
        return tokens / self.wave(1, tokens, 1)["prefill_seconds"]


class TorchPeer(JsonWorker):
    """vLLM or transformers."""

    def __init__(self, script, model, *arguments, env=None):
        python = environment.peer_python()
        folder = environment.dequantized_copy(model)
        super().__init__([python, environment.program(f"tests/bench/{script}"), folder, *arguments],
                         pathlib.Path(script).stem, env=env, ready=True)

    def run(self, batch, prompt, output):
        return self.ask(json.dumps({"batch": batch, "prompt": prompt, "output": output}))

    def decode(self, batch, prompt, output):
        return batch * (output - 1) / self.run(batch, prompt, output)["decode_seconds"]

    def prefill(self, tokens):
        return tokens / self.run(1, tokens, 1)["prefill_seconds"]


def transformers(model):
    return TorchPeer("peer_transformers.py", model)


def vllm(model, eager=False):
    cores = os.cpu_count()
    libraries = pathlib.Path(environment.peer_python()).parent.parent / "lib"
    cache = environment.cache() / "vllm"
    env = {
        "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_CACHE_ROOT": str(cache),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"), "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{cores - 1}", "OMP_NUM_THREADS": str(cores),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # As vLLM's own instructions for processors say: Intel's OpenMP.
        "LD_PRELOAD": ":".join(map(str, libraries.glob("libiomp5.so"))),
    }
    return TorchPeer("peer_vllm.py", model, *(["--eager"] if eager else []), env=env)


class Attribution(JsonWorker):
    """Trimtab's integrated gradients of a pairs file, in a process of its own."""

    def __init__(self, model, precision, pairs, max_pairs):
        super().__init__([environment.program("tests/bench/attribution_worker"), f"--model={model}",
                          f"--precision={precision}", f"--pairs={pairs}", f"--max_pairs={max_pairs}"],
                         f"attribution-{precision}", env={"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"})
        self.info = self._read()

    def run(self, steps):
        return self.ask(f"run {steps}")


class Captum(JsonWorker):
    """The same by captum and transformers, from the same file and the tokens of `info`."""

    def __init__(self, model, info):
        super().__init__([environment.peer_python(), environment.program("tests/bench/peer_captum.py"), model],
                         "peer_captum", env={"PYTHONPATH": environment.captum()})
        self.ask(json.dumps({"pairs": info["pairs"], "mask": info["mask"]}))

    def run(self, steps):
        return self.ask(json.dumps({"steps": steps}))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class TrimtabServer:
    """The real server, with a registry of its own, asked over gRPC."""

    def __init__(self, model, precision, *flags, kv_cache_mib=512):
        self.folder = tempfile.TemporaryDirectory(prefix="trimtab-bench-")
        self.log = environment.cache() / f"server-{precision}.log"
        command = [environment.program("server/trimtab"), f"--model=bench={model}", f"--precision={precision}",
                   "--address=127.0.0.1:0", "--metrics_address=127.0.0.1:0", f"--registry={self.folder.name}/registry.db",
                   f"--port_file={self.folder.name}/port", f"--kv_cache_mib={kv_cache_mib}", *flags]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log)
        port_file = pathlib.Path(self.folder.name) / "port"
        while not port_file.exists():
            if self.process.poll() is not None:
                raise RuntimeError(f"the server did not start; the last lines of {self.log}:\n" +
                                   "\n".join(self.log.read_text(errors="replace").splitlines()[-8:]))
            time.sleep(0.05)
        port, metrics_port = port_file.read_text().split()
        self.address = f"127.0.0.1:{port}"
        self.metrics_address = f"127.0.0.1:{metrics_port}"
        self.channel = grpc.insecure_channel(self.address)
        self.generation = generation_pb2_grpc.GenerationServiceStub(self.channel)
        self.model = model_pb2_grpc.ModelServiceStub(self.channel).GetModel(
            model_pb2.GetModelRequest(name="models/bench"), wait_for_ready=True)
        self.random = random.Random(1)
        # Tokens that begin every text, as Gemma's <bos> does.
        self.start = 2 * self.count(" time") - self.count(" time time")
        self.words = [word for word in WORDS if self.count(" " + word) == self.start + 1]

    def count(self, text):
        request = generation_pb2.CountTokensRequest(model="models/bench", prompt=text)
        return self.generation.CountTokens(request).total_tokens

    def prompt(self, tokens, prefix=""):
        """Text of `tokens` tokens that no earlier prompt begins with, or `prefix` and that many more."""
        words = tokens if prefix else tokens - self.start
        return prefix + "".join(" " + self.random.choice(self.words) for _ in range(words))

    def request(self, prompt, output):
        return generation_pb2.GenerateRequest(
            model="models/bench", prompt=prompt, config={"max_output_tokens": output, "ignore_eos": True})

    def metric(self, name):
        """Sum of a metric's series."""
        host, port = self.metrics_address.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))

    def resident_bytes(self):
        """(all resident memory, the part that is not backed by a file)."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        value = {key: int(number) * 1024 for key, number in re.findall(r"^(VmRSS|RssAnon):\s+(\d+) kB", status, re.MULTILINE)}
        return value["VmRSS"], value["RssAnon"]

    def decode(self, batch, prompt, output):
        """Tokens per second from the first token on, by the server's own clock; requests are sent all at once."""
        requests = [self.request(self.prompt(prompt), output) for _ in range(batch)]
        calls = [self.generation.Generate.future(request) for request in requests]
        replies = [call.result() for call in calls]
        if any(reply.usage.output_tokens != output or reply.usage.prompt_tokens != prompt for reply in replies):
            raise RuntimeError("the server's requests were not as long as they should be")
        return batch * (output - 1) / max(reply.timing.decode.ToTimedelta().total_seconds() for reply in replies)

    def close(self):
        self.channel.close()
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()


class LlamaPrograms:
    """llama-bench and llama-batched-bench: a process per measurement."""

    def __init__(self, model):
        self.folder = environment.llama_cpp()
        self.model = model

    def _run(self, name, *arguments):
        command = [self.folder / name, "-m", self.model, "-t", str(os.cpu_count()), *map(str, arguments)]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout

    def decode(self, batch, prompt, output):
        if batch == 1:
            return self.read_bench(self._run("llama-bench", "-p", 0, "-n", output, "-d", prompt, "-r", 1, "-o", "json"))
        cells = batch * (prompt + output)
        return self.read_batched(self._run("llama-batched-bench", "-c", cells, "-npp", prompt, "-ntg", output, "-npl", batch,
                                           "--output-format", "jsonl"))

    def prefill(self, tokens):
        return self.read_bench(self._run("llama-bench", "-p", tokens, "-n", 0, "-r", 1, "-o", "json"))

    @staticmethod
    def read_bench(text):
        (result,) = json.loads(text)
        return result["avg_ts"]

    @staticmethod
    def read_batched(text):
        (line,) = [line for line in text.splitlines() if line.startswith("{")]
        return json.loads(line)["speed_tg"]

    def close(self):
        pass


class LlamaServer:
    """llama-server with as many slots as the largest batch."""

    def __init__(self, model, slots, context):
        self.port = free_port()
        self.random = random.Random(1)
        log = environment.cache() / "llama-server.log"
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                [environment.llama_cpp() / "llama-server", "-m", model, "-t", str(os.cpu_count()), "--host", "127.0.0.1",
                 "--port", str(self.port), "-np", str(slots), "-c", str(slots * context), "--no-webui"],
                stdout=file, stderr=file)
        while self._get("/health") != 200:
            if self.process.poll() is not None:
                raise RuntimeError(f"llama-server did not start (log: {log})")
            time.sleep(0.1)

    def _get(self, path):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0

    def _complete(self, tokens, output, start):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        body = json.dumps({"prompt": tokens, "n_predict": output, "ignore_eos": True, "temperature": 0, "top_k": 1,
                           "samplers": ["top_k"], "cache_prompt": False})
        start.wait()
        connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
        reply = json.loads(connection.getresponse().read())
        connection.close()
        return reply["timings"]

    def decode(self, batch, prompt, output):
        """As TrimtabServer.decode."""
        start = threading.Barrier(batch)
        with concurrent.futures.ThreadPoolExecutor(batch) as pool:
            calls = [pool.submit(self._complete, [self.random.randrange(100, 20000) for _ in range(prompt)], output, start)
                     for _ in range(batch)]
            timings = [call.result() for call in calls]
        if any(timing["predicted_n"] != output or timing["prompt_n"] != prompt for timing in timings):
            raise RuntimeError(f"llama-server's requests were not as long as they should be: {timings[0]}")
        return batch * (output - 1) / (max(timing["predicted_ms"] for timing in timings) / 1000)

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
