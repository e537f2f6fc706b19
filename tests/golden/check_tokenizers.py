#!/usr/bin/env python3
"""Compares Trimtab's tokenizer with Hugging Face's on far more texts than the goldens hold.

  bazelw build //tests/models/tokenizer:tokenize
  check_tokenizers.py bazel-bin/tests/models/tokenizer/tokenize SMOLLM2.gguf GEMMA3.gguf FOLDER_OF_LLAMA_CPP_VOCABULARIES

Per family, encoded and decoded: 6,000 texts of make_tokenizer_golden.py with another seed; the test cases of llama.cpp;
every code point below U+20000 and every 37th above in three contexts; edge cases; and runs of 1 MB of one text (the
tokens alone). A difference is allowed only for a text with a code point that Unicode 14, the version of Debian's tables,
does not know. SmolLM2, GPT-2, Llama 3, Qwen2, Gemma 3, Llama 2 and the small Unigram model.
"""
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import unicodedata

from tokenizers import Tokenizer

import make_tokenizer_golden as golden
from reference_tokenizers import UNIGRAM, load

EDGES = ["a\u180eb", "\u180e", "x\u0085y", "\u0085\u0085", "it'\u017f", "I'\u017f'S", "\r\n\r\n\r\n", "\n\r\n\r", "a\r\n\r\n b", " \r\n \r\n", "\u1100\u1161\u11a8",
         "\u1112\u1161\u11ab\u1100", "\U0001F468\u200d\U0001F469\u200d\U0001F467", "\u200d\u200d", "<|im_start|>x<|im_end|>", "a<s>b</s>c<unk>d",
         "<bos><start_of_turn>user\nhi<end_of_turn>\n", "<0x0A><0xFF>", "\u2581a\u2581\u2581b", " \u2581 ", "  \t  \n  x", "\t\t\t", "\ufeffx", "\x00\x01\x02", "<start_of_image>", "</div><table>"]
RUNS = ["a", " ", "\n", "\t", "=", "0", "\u65e5", "\u0e01", "\U0001F642", "\u0301", "<", "ab ", "the ", "\u2581", "<s>"]


def code_points():
    for code in list(range(0x20000)) + list(range(0x20000, 0x110000, 37)):
        if not 0xD800 <= code < 0xE000:
            char = chr(code)
            yield from (char, "a" + char + "b", " " + char + char + " 1")


def texts(folder):
    rng = random.Random(77)
    yield "corpus", [golden.text(rng).decode("utf-8", "replace") for _ in range(6000)]
    cases = []
    for name in sorted(os.listdir(folder)):
        if name.endswith(".inp"):
            cases += open(os.path.join(folder, name), encoding="utf-8", newline="").read().split("\n__ggml_vocab_test__\n")
    yield "llama.cpp", cases
    yield "code points", list(code_points())
    yield "edges", EDGES
    yield "runs of 1 MB", [unit * (10**6 // len(unit.encode())) for unit in RUNS]


def encode(tokenize, vocabulary, records):
    """Tokens, text and text without control tokens of each record, and what the program says."""
    with tempfile.TemporaryDirectory() as folder:
        source, result = os.path.join(folder, "in"), os.path.join(folder, "out")
        with open(source, "wb") as out:
            for record in records:
                data = record.encode()
                out.write(struct.pack("<I", len(data)) + data)
        said = subprocess.run([tokenize, vocabulary, source, result], check=True, capture_output=True, text=True).stdout
        data = open(result, "rb").read()
    at, made = 0, []
    for _ in records:
        count, = struct.unpack_from("<I", data, at)
        ids = list(struct.unpack_from("<%dI" % count, data, at + 4))
        at += 4 + 4 * count
        decoded = []
        for _ in range(2):
            length, = struct.unpack_from("<I", data, at)
            decoded.append(data[at + 4:at + 4 + length].decode())
            at += 4 + length
        made.append((ids, *decoded))
    return made, said


def unknown(text):
    return any(unicodedata.category(char) == "Cn" for char in text)


def main():
    tokenize, smollm2, gemma3, folder = sys.argv[1:]
    vocabulary = lambda name: os.path.join(folder, "ggml-vocab-%s.gguf" % name)
    families = {"SmolLM2": smollm2, "GPT-2": vocabulary("gpt-2"), "Llama 3": vocabulary("llama-bpe"), "Qwen2": vocabulary("qwen2"),
                "Gemma 3": gemma3, "Llama 2": vocabulary("llama-spm"), "Unigram": UNIGRAM}
    sets = list(texts(folder))
    failed = False
    assert unicodedata.unidata_version.startswith("14."), "the whitelist needs the Unicode version of Debian's tables"
    for family, path in families.items():
        reference = Tokenizer.from_file(path) if path.endswith(".json") else load(path)[0]
        for name, records in sets:
            made, said = encode(tokenize, path, records)
            encodings = reference.encode_batch(records, add_special_tokens=False)
            whole = name == "runs of 1 MB"
            bad = []
            for record, encoding, got in zip(records, encodings, made):
                expected = (encoding.ids,) if whole else (encoding.ids, reference.decode(encoding.ids, skip_special_tokens=False),
                                                          reference.decode(encoding.ids, skip_special_tokens=True))
                if expected != got[:len(expected)]:
                    bad.append(record)
            excused = sum(unknown(record) for record in bad)
            failed |= len(bad) > excused
            print("%s, %s: %d texts, %d differ, %d of them unknown to Unicode 14" % (family, name, len(records), len(bad), excused), flush=True)
            for record in [r for r in bad if not unknown(r)][:5]:
                print("   ", json.dumps(record)[:120])
            print("   ", said.strip().replace("\n", "; ")[:1500], flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
