#!/usr/bin/env python3
"""Makes the golden of tests/steering/control_vector_test.cc with repeng, and reads a file of Trimtab with it.

  make_control_vector_golden.py                    writes tests/golden/data/vectors/repeng.{gguf,json}
  make_control_vector_golden.py --check FILE.gguf  reads FILE as repeng and llama.cpp do and prints what is in it

Needs repeng 0.4.0 (its extract.py alone is used: ControlVector.export_gguf and import_gguf) with gguf 0.19 and numpy.

How an export was checked, once, with SmolLM2-135M-Instruct: a vector after block 14 was exported with `trimctl export
calm --format gguf --gguf_scale 100 --out DIR`; --check read it with ControlVector.import_gguf; and llama-server of
llama.cpp (the sdist llama_cpp_python 0.3.36) took it as --control-vector. Its log-probabilities of the 20 likeliest next
tokens of six prompts were compared with Trimtab's (weights in float32) under the same file, imported with --site
block_output and steered with strength 1. Mean absolute difference, nats: 0.074 without steering on both sides; under the
vector 0.117 with --layer_offset 0, 1.43 with -1, 1.21 with 1, 1.16 with llama.cpp alone steered.
"""

import argparse
import json
import pathlib

import numpy as np
from repeng import ControlVector

OUT = pathlib.Path(__file__).parent / "data" / "vectors"
HIDDEN = 12  # not a multiple of the format's alignment
LAYERS = [3, 2, 1]  # repeng writes the last block first


def write():
    rng = np.random.default_rng(20260119)
    directions = {}
    for layer in LAYERS:
        direction = rng.standard_normal(HIDDEN).astype(np.float32)
        directions[layer] = direction * np.float32(0.5 * layer)
    vector = ControlVector(model_type="llama", directions=directions)
    OUT.mkdir(parents=True, exist_ok=True)
    vector.export_gguf(OUT / "repeng.gguf")
    again = ControlVector.import_gguf(OUT / "repeng.gguf")
    assert again.model_type == "llama" and sorted(again.directions) == sorted(directions)
    with open(OUT / "repeng.json", "w") as out:
        json.dump({str(layer): [float(x) for x in directions[layer]] for layer in LAYERS}, out, indent=1)
        out.write("\n")


def check(path):
    vector = ControlVector.import_gguf(path)
    print("model hint", vector.model_type)
    for layer, direction in sorted(vector.directions.items()):
        assert direction.dtype == np.float32 and direction.ndim == 1, "llama.cpp takes one-dimensional float32 only"
        assert layer > 0, "llama.cpp refuses layer 0"
        print(f"direction.{layer}: {direction.shape[0]} numbers, norm {np.linalg.norm(direction):.6f}")


parser = argparse.ArgumentParser()
parser.add_argument("--check", metavar="FILE")
arguments = parser.parse_args()
check(arguments.check) if arguments.check else write()
