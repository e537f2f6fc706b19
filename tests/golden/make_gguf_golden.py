#!/usr/bin/env python3
"""Makes the goldens of tests/models/weights with gguf-py, the reference of the GGUF format.

  make_gguf_golden.py SmolLM2-135M-Instruct.Q4_1.gguf

Needs the packages gguf and numpy. Writes into tests/golden/data/weights:
  all_types.gguf             one tensor of each type that Trimtab reads, random blocks, and metadata of every type
  all_types.safetensors      the same tensors as gguf-py de-quantises them, F32 (written by the few lines below)
  smollm2_135m_q4_1.json     metadata of the shipped model, and SHA-256 of its de-quantised tensors
"""

import hashlib
import json
import pathlib
import struct
import sys

import gguf
import numpy as np

OUT = pathlib.Path(__file__).parent / "data" / "weights"
TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
# Where a block holds half-precision scales: any other byte may have any value, a scale must be a number.
SCALES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}
ROWS, ROW = 2, 512


def random_tensor(rng, name):
    """The bytes of a [ROWS, ROW] tensor, as gguf-py wants them: uint8 [ROWS, bytes per row]."""
    kind = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (ROWS, ROW // block, size), dtype=np.uint8)
    if name in SCALES:
        # From subnormal to large, both signs.
        for at in SCALES[name]:
            scale = (rng.standard_normal((ROWS, ROW // block)) * 10.0 ** rng.integers(-7, 3, (ROWS, ROW // block)))
            data[:, :, at : at + 2] = scale.astype("<f2")[..., None].view(np.uint8)
    else:
        dtype = {"F32": "<u4", "F16": "<u2", "BF16": "<u2"}[name]
        exponent = {"F32": 0x7F800000, "F16": 0x7C00, "BF16": 0x7F80}[name]
        bits = data.reshape(ROWS, -1).view(dtype)
        bits[(bits & exponent) == exponent] &= ~np.array(exponent, dtype)  # no infinity, no NaN: subnormal instead
    return kind, data.reshape(ROWS, -1)


def write_all_types():
    rng = np.random.default_rng(20261124)
    writer = gguf.GGUFWriter(OUT / "all_types.gguf", "test")
    writer.add_uint8("test.uint8", 200)
    writer.add_int8("test.int8", -100)
    writer.add_uint16("test.uint16", 60000)
    writer.add_int16("test.int16", -30000)
    writer.add_uint32("test.uint32", 4_000_000_000)
    writer.add_int32("test.int32", -2_000_000_000)
    writer.add_uint64("test.uint64", 2**63 + 1)
    writer.add_int64("test.int64", -(2**62))
    writer.add_float32("test.float32", 0.1)
    writer.add_float64("test.float64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "grüße")
    writer.add_array("test.strings", ["a", "", "ß"])
    writer.add_array("test.ints", [3, -4, 5])
    writer.add_array("test.floats", [0.5, -1.25])
    writer.add_array("test.bools", [True, False])
    tensors = {}
    for name in TYPES:
        kind, data = random_tensor(rng, name)
        values = gguf.dequantize(data, kind)
        assert values.shape == (ROWS, ROW) and values.dtype == np.float32 and np.isfinite(values).all(), name
        tensors[name] = values
        if name in ("F32", "F16"):
            writer.add_tensor(name, data.view("<f4" if name == "F32" else "<f2"))
        else:
            writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    header, body = {}, b""
    for name, values in tensors.items():
        data = values.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    (OUT / "all_types.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)


def write_model(path):
    reader = gguf.GGUFReader(path)
    whole, digests = hashlib.sha256(), {}
    for tensor in sorted(reader.tensors, key=lambda tensor: tensor.name):
        data = np.ascontiguousarray(gguf.dequantize(tensor.data, tensor.tensor_type), "<f4").tobytes()
        whole.update(data)
        if tensor.name in ("token_embd.weight", "blk.0.attn_q.weight", "blk.29.ffn_down.weight", "output_norm.weight"):
            shape = [int(size) for size in reversed(tensor.shape)]
            digest = hashlib.sha256(data).hexdigest()
            digests[tensor.name] = {"type": tensor.tensor_type.name, "shape": shape, "float_sha256": digest}
    metadata = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    arrays = {key: len(value) for key, value in metadata.items() if isinstance(value, list)}
    scalars = {key: value for key, value in metadata.items() if not isinstance(value, list)}
    golden = {
        "tensor_count": len(reader.tensors),
        "all_float_sha256": whole.hexdigest(),
        "tensors": digests,
        "metadata": scalars,
        "array_sizes": arrays,
        "last_merge": metadata["tokenizer.ggml.merges"][-1],
    }
    text = json.dumps(golden, indent=1, sort_keys=True, ensure_ascii=False)
    (OUT / "smollm2_135m_q4_1.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    OUT.mkdir(parents=True, exist_ok=True)
    write_all_types()
    write_model(sys.argv[1])
