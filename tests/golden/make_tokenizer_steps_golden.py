#!/usr/bin/env python3
"""Writes tokenizer_steps_golden.jsonl: what Hugging Face's tokenizers (0.22) make of texts with many kinds of steps.

The first line holds the texts. Each other line: the tokenizer.json that it starts from (data/unigram/BASE.json), a JSON
merge patch for it, and for each text its tokens, the text of those (null: the same) and that without control tokens
(null: the same as with them); null where the reference stops with a panic.
Run again it writes the same file: make_tokenizer_steps_golden.py OUTPUT_FOLDER
"""
import json
import os
import sys

from tokenizers import Tokenizer

from reference_tokenizers import MARK, UNIGRAM, small_bpe_json

TEXTS = ["Hello  world ", " The quick", "", "   ", "x<a>y <a> z", " <a>  <b>\n q", "the <w> x<w> <w>y <w>", "\u01c4\u00c4e\u0301\u2460\ufb01\u0130\u1e9e\u03a3",
         "tab\tnew\nline \u00a0\u3000 end\u2003", "int main() { return 0; }", "\u65e5\u672c\U0001F642\U00020000", "<0x0A> \u2581\u2581 <s> <unk>",
         "<A><N>\u00e9<n> <a", "\u212b\u1100\u1161\u11a8 q\u0307\u0323", "a b", "\u2581lead"]


def metaspace(scheme, split=True):
    return {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": split}


def sequence(kind, *parts):
    return {"type": "Sequence", kind: list(parts)}


def token(number, text, special=False, **flags):
    return {"id": number, "content": text, "special": special} | {
        flag: flags.get(flag, False) for flag in ("single_word", "lstrip", "rstrip", "normalized")}


def replace(pattern, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def strip(left, right):
    return {"type": "Strip", "strip_left": left, "strip_right": right}


def patches(base):
    """Name of the base, and patches for it."""
    size = len(base["model"]["vocab"])
    for normalizer in (None, {"type": "NFC"}, {"type": "NFD"}, {"type": "NFKC"}, {"type": "NFKD"}, {"type": "Lowercase"},
                       strip(True, False), strip(False, True), strip(True, True), replace("e", "<a>"),
                       replace(r"\s+", " ", "Regex"), {"type": "Prepend", "prepend": MARK}, {"type": "Prepend", "prepend": "ab"},
                       sequence("normalizers", {"type": "NFKD"}, {"type": "Lowercase"}, strip(True, True), replace(" ", MARK)),
                       sequence("normalizers", {"type": "Prepend", "prepend": MARK}, replace(" ", MARK))):
        yield {"normalizer": normalizer}
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            decoder = sequence("decoders", {"type": "ByteFallback"}, metaspace(scheme))
            yield {"normalizer": None, "pre_tokenizer": metaspace(scheme, split), "decoder": decoder}
    yield {"normalizer": strip(True, False), "pre_tokenizer": metaspace("first")}
    yield {"normalizer": None, "pre_tokenizer": sequence("pretokenizers", {"type": "WhitespaceSplit"}, metaspace("always"))}
    yield {"normalizer": None, "pre_tokenizer": sequence("pretokenizers", {"type": "WhitespaceSplit"}, metaspace("first"))}
    yield {"normalizer": None, "pre_tokenizer": sequence("pretokenizers", metaspace("always"), {"type": "Digits", "individual_digits": True})}
    for stop in (0, 2):
        yield {"normalizer": replace(" ", MARK), "pre_tokenizer": None,
               "decoder": sequence("decoders", replace(MARK, " "), {"type": "Strip", "content": "e", "start": 1, "stop": stop}, {"type": "ByteFallback"}, {"type": "Fuse"})}
    for start in (1, 2):
        yield {"normalizer": replace(" ", MARK), "pre_tokenizer": None,
               "decoder": sequence("decoders", replace(MARK, " "), {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": start, "stop": 0})}
    for special in (False, True):
        for normalizer in (None, {"type": "Lowercase"}, replace(" ", MARK)):
            for flags in ({}, {"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}, {"single_word": True}):
                flags = flags | ({"normalized": True} if normalizer else {})
                yield {"normalizer": normalizer, "added_tokens": base["added_tokens"] + [
                    token(size, "<a>", special, **flags), token(size + 1, "<b>"), token(size + 2, "<w>", True, single_word=True),
                    token(size + 3, "<N>", special, normalized=True), token(size + 4, "the", special, **flags)]}


def model_patches():
    yield {"model": {"byte_fallback": False}}
    yield {"model": {"byte_fallback": False, "fuse_unk": True}}
    yield {"model": {"ignore_merges": True}}


def main():
    with open(os.path.join(sys.argv[1], "tokenizer_steps_golden.jsonl"), "w", encoding="utf-8") as out:
        unigram = json.load(open(UNIGRAM, encoding="utf-8"))
        bpe = small_bpe_json(unigram)
        with open(os.path.join(os.path.dirname(UNIGRAM), "bpe.json"), "w", encoding="utf-8") as base:
            json.dump(bpe, base, ensure_ascii=False, separators=(",", ":"))
        made = [("tokenizer", patch) for patch in patches(unigram)] + [("tokenizer", {"model": {"byte_fallback": False}})]
        made += [("bpe", patch) for patch in list(patches(bpe))[:26:2]] + [("bpe", patch) for patch in model_patches()]
        write = lambda value: out.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
        write(TEXTS)
        for name, patch in made:
            base = dict(bpe if name == "bpe" else unigram)
            for key, value in patch.items():
                base[key] = base[key] | value if key == "model" else value
            tokenizer = Tokenizer.from_str(json.dumps(base))
            cases = []
            for text in TEXTS:
                try:
                    ids = tokenizer.encode(text, add_special_tokens=False).ids
                    decoded, skipped = (tokenizer.decode(ids, skip_special_tokens=skip) for skip in (False, True))
                    cases.append([ids, None if decoded == text else decoded, None if skipped == decoded else skipped])
                except BaseException as error:
                    print(name, patch, repr(text), str(error)[:80], file=sys.stderr)
                    cases.append(None)
            write({"base": name, "patch": patch, "cases": cases})


if __name__ == "__main__":
    main()
