"""Asks a Trimtab server: client.py ADDRESS QUESTION [OBJECTIVE=STRENGTH ...]

Needs grpcio and protobuf, and the generated modules on PYTHONPATH: `./bazelw build //proto:python` puts them into
bazel-bin/proto/python.
"""

import sys

import grpc

from trimtab.v1 import common_pb2, generation_pb2, generation_pb2_grpc, model_pb2, model_pb2_grpc

if len(sys.argv) < 3:
    sys.exit(__doc__)
address, question, *selections = sys.argv[1:]
with grpc.insecure_channel(address) as channel:
    models = model_pb2_grpc.ModelServiceStub(channel).ListModels(model_pb2.ListModelsRequest()).models
    request = generation_pb2.GenerateRequest(model=models[0].name, config={"max_output_tokens": 80})
    if models[0].has_chat_template:
        request.conversation.contents.add(role=common_pb2.ROLE_USER, parts=[{"text": question}])
    else:  # a base model goes on with the text as it is
        request.prompt = question
    for objective, strength in (selection.split("=") for selection in selections):
        request.steering.add(objective=objective, strength=float(strength))
    try:
        for piece in generation_pb2_grpc.GenerationServiceStub(channel).StreamGenerate(request):
            print(piece.text, end="", flush=True)
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
    print()
    for applied in piece.applied:  # the last piece says what was applied
        print(f"[{applied.objective}, revision {applied.revision}, strength {applied.strength:.3f}]")
