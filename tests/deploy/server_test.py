"""The server's binary as operators run it: the example client, SIGTERM, kill -9 in the middle of a fit or a load."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.request

import grpc

from google.longrunning import operations_pb2, operations_pb2_grpc
from trimtab.methods.v1 import fit_pb2, grains_pb2
from trimtab.v1 import (common_pb2, generation_pb2, generation_pb2_grpc, model_pb2, model_pb2_grpc, objective_pb2,
                        objective_pb2_grpc)

MODEL = "../trimtab_models/SmolLM2-135M-Instruct.Q4_1.gguf"


class Server:
    def __init__(self, folder, *flags):
        command = ["server/trimtab", f"--model=small={MODEL}", "--address=127.0.0.1:0", "--metrics_address=127.0.0.1:0",
                   f"--registry={folder}/registry.db", "--kv_cache_mib=64", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        ports = self.wait_for(r" serving port=(\d+) metrics_port=(\d+)")
        self.address, self.metrics = f"127.0.0.1:{ports[1]}", f"http://127.0.0.1:{ports[2]}/metrics"

    def wait_for(self, pattern):
        for line in self.process.stderr:
            sys.stderr.write(line)
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"the server ended without {pattern}")

    def stop(self, number):
        self.process.send_signal(number)
        log = self.process.stderr.read()
        return self.process.wait(), log


def registration(objective_id):
    config = grains_pb2.GrainsConfig(
        attribution=grains_pb2.GrainsConfig.ATTRIBUTION_KIND_OCCLUSION, k=3,
        fit=fit_pb2.FitOptions(layers=[15], candidate_strengths=[0.05], random_directions=1))
    request = objective_pb2.RegisterObjectiveRequest(parent="models/small", objective_id=objective_id)
    request.objective.method = "grains"
    request.objective.method_config.Pack(config)
    for topic in ("the weather", "your day", "the garden", "my new job", "the train", "dinner"):
        pair = request.objective.pairs.add(preferred="It is wonderful, I love it!", dispreferred="It is awful.")
        pair.prompt.add(role=common_pb2.ROLE_USER, parts=[{"text": f"What do you think of {topic}?"}])
    return request


def resident(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class ServerTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR"))
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def start(self, *flags):
        server = Server(self.folder, *flags)
        self.addCleanup(server.process.stderr.close)
        self.addCleanup(server.process.wait)
        self.addCleanup(server.process.kill)
        return server

    def client(self, server, *arguments):
        return subprocess.run([sys.executable, "deploy/examples/client.py", server.address, *arguments],
                              capture_output=True, text=True)

    def test_the_example_client_and_sigterm(self):
        server = self.start()
        answer = self.client(server, "Tell me about elephants.")
        self.assertEqual(answer.returncode, 0, answer.stderr)
        # The first word is a near certainty, whatever the weights are kept in.
        self.assertIn("lephants are", answer.stdout)
        usage = subprocess.run([sys.executable, "deploy/examples/client.py"], capture_output=True, text=True)
        self.assertEqual(usage.returncode, 1)
        self.assertIn("client.py ADDRESS QUESTION", usage.stderr)
        refused = self.client(server, "Hello!", "nothing=0.1")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("models/small/objectives/nothing", refused.stderr)
        with grpc.insecure_channel(server.address) as channel:
            # ListServices of gRPC's reflection, by hand: the protocol's own modules are not needed for it.
            call = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
            services = next(call(iter([b"\x3a\x00"])))
            for service in (b"trimtab.v1.GenerationService", b"google.longrunning.Operations", b"grpc.health.v1.Health"):
                self.assertIn(service, services)
        code, log = server.stop(signal.SIGTERM)
        self.assertEqual(code, 0, log)
        self.assertIn("draining", log)
        self.assertIn("ended", log)

    def test_a_fit_survives_the_death_of_the_server(self):
        server = self.start()
        with grpc.insecure_channel(server.address) as channel:
            stub = objective_pb2_grpc.ObjectiveServiceStub(channel)
            operation = stub.RegisterObjective(registration("cheerful"))
            server.wait_for("a job starts")
        server.stop(signal.SIGKILL)
        server = self.start()
        with grpc.insecure_channel(server.address) as channel:
            operations = operations_pb2_grpc.OperationsStub(channel)
            operation = operations.WaitOperation(operations_pb2.WaitOperationRequest(name=operation.name))
        self.assertTrue(operation.done)
        objective = objective_pb2.Objective()
        self.assertTrue(operation.response.Unpack(objective), operation)
        self.assertEqual(objective.state, objective_pb2.Objective.STATE_ACTIVE)
        answer = self.client(server, "How are you?", "cheerful=0.1")
        self.assertEqual(answer.returncode, 0, answer.stderr)
        self.assertIn("[models/small/objectives/cheerful, revision 1, strength 0.100]", answer.stdout)

    def test_a_load_survives_the_death_of_the_server(self):
        root = os.path.join(self.folder, "models")
        os.mkdir(root)
        shutil.copyfile(MODEL, os.path.join(root, "model.gguf"))
        server = self.start(f"--model_root={root}")
        with grpc.insecure_channel(server.address) as channel:
            stub = model_pb2_grpc.ModelServiceStub(channel)
            operation = stub.LoadModel(model_pb2.LoadModelRequest(model_id="late", path="model.gguf", kv_cache_mib=16))
            server.wait_for("a job starts")
        server.stop(signal.SIGKILL)
        server = self.start(f"--model_root={root}")
        with grpc.insecure_channel(server.address) as channel:
            operations = operations_pb2_grpc.OperationsStub(channel)
            operation = operations.WaitOperation(operations_pb2.WaitOperationRequest(name=operation.name))
            self.assertTrue(operation.done)
            model = model_pb2.Model()
            self.assertTrue(operation.response.Unpack(model), operation)
            self.assertEqual(model.kv_cache_bytes, 16 << 20)
        # Acknowledged: no death loses it, and none of the two disturbs the other.
        server.stop(signal.SIGKILL)
        server = self.start(f"--model_root={root}")
        with grpc.insecure_channel(server.address) as channel:
            generation = generation_pb2_grpc.GenerationServiceStub(channel)
            config = generation_pb2.GenerationConfig(max_output_tokens=8, temperature=0)
            answers = [generation.Generate(generation_pb2.GenerateRequest(model=f"models/{name}", prompt="Once upon a",
                                                                          config=config)).text
                       for name in ("small", "late")]
            self.assertEqual(answers[0], answers[1])
            stub = model_pb2_grpc.ModelServiceStub(channel)
            before = resident(server.process.pid)
            operation = stub.UnloadModel(model_pb2.UnloadModelRequest(name="models/late"))
            operations = operations_pb2_grpc.OperationsStub(channel)
            self.assertTrue(operations.WaitOperation(operations_pb2.WaitOperationRequest(name=operation.name)).done)
            # At least its cache and half of its weights are with the system again; what the two models share of a
            # memory region stays.
            self.assertLess(resident(server.process.pid), before - (16 + 45) * 2**20)
            self.assertEqual([model.name for model in stub.ListModels(model_pb2.ListModelsRequest()).models],
                             ["models/small"])

    def test_the_build_is_named(self):
        version = subprocess.run(["server/trimtab", "--version"], capture_output=True, text=True).stdout
        match = re.fullmatch(r"trimtab (\d+\.\d+\.\d+) \((unknown|[^ ]*[0-9a-f]{7,}(?:-dirty)?)\)\n", version)
        self.assertTrue(match, version)
        with urllib.request.urlopen(self.start().metrics) as page:
            self.assertIn(f'trimtab_build_info{{revision="{match[2]}",version="{match[1]}"}} 1\n', page.read().decode())

    def test_help_lists_the_flags(self):
        text = subprocess.run(["server/trimtab", "--help"], capture_output=True, text=True).stdout
        for flag in ("--model", "--registry", "--kv_cache_mib", "--drain_timeout"):
            self.assertIn(flag + " (", text)

    def test_a_dry_run_tells_what_a_model_needs(self):
        run = subprocess.run(["server/trimtab", "--dry_run", f"--model={MODEL}", "--device_memory=1GiB", "--max_context=1024"],
                             capture_output=True, text=True)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("blk.29.ffn_down.weight", run.stdout)
        self.assertIn("134,515,008 parameters", run.stdout)
        self.assertRegex(run.stdout, "Largest batch within 1.00 GiB, 1,024 tokens each:\n  float32 +[0-9]+ sequences")
        lacking = subprocess.run(["server/trimtab", "--dry_run", f"--model={MODEL}", "--device_memory=much"],
                                 capture_output=True, text=True)
        self.assertEqual(lacking.returncode, 1)
        self.assertIn("such as 24GiB", lacking.stderr)

    def test_paths_are_the_callers(self):
        # `bazelw run` starts programs elsewhere and says where the caller is.
        name = os.path.basename(MODEL)
        run = subprocess.run(["server/trimtab", "--dry_run", f"--model={name}"], capture_output=True, text=True,
                             env={**os.environ, "BUILD_WORKING_DIRECTORY": os.path.dirname(os.path.abspath(MODEL))})
        self.assertEqual(run.returncode, 0, run.stderr)

    def test_wrong_flags_are_explained(self):
        for flags, words in ((["--model=small=/nowhere.gguf"], "/nowhere.gguf"), ([], "--model"),
                             ([f"--model={MODEL}", "--address=0.0.0.0:1"], "--allow_insecure"),
                             ([f"--model={MODEL}", "--metrics_objectives=0"], "--metrics_objectives"), (["surplus"], "surplus")):
            run = subprocess.run(["server/trimtab", "--metrics_address=", f"--registry={self.folder}/r.db", *flags],
                                 capture_output=True, text=True)
            self.assertEqual(run.returncode, 1, run.stderr)
            self.assertIn(words, run.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
