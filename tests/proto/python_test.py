"""The generated Python modules need nothing but grpcio and protobuf."""

import sys
import unittest

import grpc

from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import error_details_pb2, status_pb2
from trimtab.methods.v1 import grains_pb2
from trimtab.v1 import drift_pb2_grpc, generation_pb2, generation_pb2_grpc, model_pb2_grpc
from trimtab.v1 import objective_pb2, objective_pb2_grpc


class PythonTest(unittest.TestCase):
    def test_messages_survive_the_round_trip(self):
        request = generation_pb2.GenerateRequest(model="models/m", prompt="p")
        request.steering.add(objective="calm", strength=0.1)
        again = generation_pb2.GenerateRequest.FromString(request.SerializeToString())
        self.assertEqual(request, again)
        objective = objective_pb2.Objective(method="grains")
        objective.method_config.Pack(grains_pb2.GrainsConfig(k=5))
        config = grains_pb2.GrainsConfig()
        self.assertTrue(objective.method_config.Unpack(config))
        self.assertEqual(config.k, 5)

    def test_details_of_errors_can_be_read(self):
        status = status_pb2.Status(code=5, message="m")
        status.details.add().Pack(error_details_pb2.ErrorInfo(reason="MODEL_NOT_FOUND", domain="trimtab"))
        info = error_details_pb2.ErrorInfo()
        self.assertTrue(status.details[0].Unpack(info))
        self.assertEqual(info.reason, "MODEL_NOT_FOUND")

    def test_stubs_have_the_methods(self):
        channel = grpc.insecure_channel("127.0.0.1:1")
        self.assertTrue(generation_pb2_grpc.GenerationServiceStub(channel).StreamGenerate)
        self.assertTrue(objective_pb2_grpc.ObjectiveServiceStub(channel).RegisterObjective)
        self.assertTrue(drift_pb2_grpc.DriftServiceStub(channel).EvaluateDrift)
        self.assertTrue(model_pb2_grpc.ModelServiceStub(channel).ListModels)
        self.assertTrue(operations_pb2_grpc.OperationsStub(channel).WaitOperation)
        self.assertFalse(operations_pb2.Operation().done)
        channel.close()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
