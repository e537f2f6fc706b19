"""Reference tokenizers (Hugging Face `tokenizers`) of the vocabularies in GGUF files, and a small Unigram model.

The vocabularies come from the files, the steps around them from the models' own tokenizer.json; the merges of
SentencePiece models are derived from their scores as transformers' generate_merges does.
"""
import json
import os

from gguf import GGUFReader
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
MARK = "\u2581"  # SentencePiece's space


def byte_level(use_regex):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


FAMILIES = {  # pre-tokenizer, normalizer, ignore_merges
    "smollm": (sequence({"type": "Digits", "individual_digits": True}, byte_level(True)), None, False),
    "gpt-2": (byte_level(True), None, False),
    "llama-bpe": (sequence(split(LLAMA3), byte_level(False)), None, True),
    "qwen2": (sequence(split(QWEN2), byte_level(False)), {"type": "NFC"}, False),
}


def added_token(number, text, special):
    return {"id": number, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": special}


def tokenizer_json(added, normalizer, pre, decoder, model):
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False} | model
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer,
            "pre_tokenizer": pre, "post_processor": None, "decoder": decoder, "model": model}


def byte_level_json(get):
    tokens, types = get("tokens"), get("token_type")
    pre, normalizer, ignore_merges = FAMILIES[get("pre")]
    added = [added_token(i, t, True) for i, t in enumerate(tokens) if types[i] == 3]
    vocab = {t: i for i, t in enumerate(tokens) if types[i] == 1 or get("pre") == "smollm"}
    return tokenizer_json(added, normalizer, pre, byte_level(True),
                          {"vocab": vocab, "merges": get("merges"), "ignore_merges": ignore_merges})


def derive_merges(vocab, scores):
    """transformers' generate_merges for a SentencePiece vocabulary (text -> id) with scores (text -> score)."""
    merges = []
    for piece, score in scores.items():
        ways = [(piece[:i], piece[i:], score) for i in range(1, len(piece)) if piece[:i] in vocab and piece[i:] in vocab]
        merges += sorted(ways, key=lambda way: (vocab[way[0]], vocab[way[1]]))
    merges.sort(key=lambda way: (way[2], len(way[0]), len(way[1])), reverse=True)
    return [way[:2] for way in merges]


def sentencepiece_json(get):
    types = get("token_type")
    # Files write the spaces of user-defined tokens out and give these tokens -1000; in the model their score is 0.
    tokens = [t.replace(" ", MARK) if kind == 4 else t for t, kind in zip(get("tokens"), types)]
    scores = [0.0 if kind == 4 else s for s, kind in zip(get("scores"), types)]
    vocab = {t: i for i, t in enumerate(tokens)}
    usable = {t: s for t, s, kind in zip(tokens, scores, types) if kind in (1, 4, 5)}
    images = ("<start_of_image>", "<end_of_image>")
    added = [added_token(i, t, kind != 4 or t in images) for i, (t, kind) in enumerate(zip(tokens, types)) if kind in (2, 3, 4)]
    prefix = get("add_space_prefix", True)
    normalizer = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
    decoders = [{"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
    if prefix:
        normalizer = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK}, normalizer]}
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return tokenizer_json(added, normalizer, None, {"type": "Sequence", "decoders": decoders},
                          {"vocab": vocab, "merges": derive_merges({t: vocab[t] for t in usable}, usable),
                           "unk_token": tokens[get("unknown_token_id")], "fuse_unk": True, "byte_fallback": True})


def load_json(path):
    """The tokenizer.json of a GGUF file, and the file's fields."""
    fields = GGUFReader(path).fields

    def get(key, default=None):
        field = fields.get("tokenizer.ggml." + key)
        return default if field is None else field.contents()
    return (sentencepiece_json if get("model") == "llama" else byte_level_json)(get), fields


def load(path):
    """The reference tokenizer of a GGUF file, and the file's fields."""
    made, fields = load_json(path)
    return Tokenizer.from_str(json.dumps(made)), fields


def unigram_json(texts):
    """A small Unigram model trained on `texts`, with byte fallback, as a tokenizer.json."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=700, unk_token="<unk>", special_tokens=["<unk>", "<s>", "</s>"],
                                      show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    vocab = [[text, round(score, 5)] for text, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
    vocab += [["<0x%02X>" % byte, -30.0] for byte in range(256)]
    metaspace = {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True}
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, metaspace]}
    normalizer = {"type": "Sequence", "normalizers": [
        {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "NFC"},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]}
    made = tokenizer_json([added_token(i, vocab[i][0], True) for i in range(3)], normalizer, metaspace, decoder, {})
    made["model"] = {"type": "Unigram", "unk_id": 0, "byte_fallback": True, "vocab": vocab}
    return made


UNIGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "unigram", "tokenizer.json")


def small_bpe_json(unigram):
    """A small BPE of characters with byte fallback: the texts of `unigram`, with merges by its scores."""
    scores = {text: score for text, score in unigram["model"]["vocab"]}
    vocab = {text: i for i, text in enumerate(scores)}
    usable = {text: score for text, score in scores.items() if not text.startswith("<")}
    merges = derive_merges({text: vocab[text] for text in usable}, usable)
    model = {"vocab": vocab, "merges": [list(merge) for merge in merges], "unk_token": "<unk>", "byte_fallback": True}
    return tokenizer_json(unigram["added_tokens"], unigram["normalizer"], unigram["pre_tokenizer"], unigram["decoder"], model)
