#!/usr/bin/env python3
"""Writes the tokenizer's goldens from Hugging Face's libraries: tokenizer_golden.txt and chat_golden.jsonl.

Needs tokenizers 0.22, transformers 4.57, gguf 0.19 and jinja2. Run again with the same arguments it writes the same
files:

  make_tokenizer_golden.py SMOLLM2.gguf GEMMA3.gguf FOLDER_OF_LLAMA_CPP_VOCABULARIES OUTPUT_FOLDER

tokenizer_golden.txt, one record a line, fields separated by one space:
  S HASH_OF_IDS HASH_OF_DECODED TEXT   a text and SmolLM2's tokens of it
  R HASH_OF_IDS HASH_OF_DECODED COUNT TEXT   the same for TEXT repeated COUNT times
  I ID...                              the ids themselves, for one text in 20
  F GPT2 LLAMA3 QWEN2                  hashes over the ids of the last 20 texts, by the other families
  G GEMMA3 LLAMA2 UNIGRAM              the same, over the ids and then the decoded texts, each with a zero byte
TEXT writes a byte below 0x20, above 0x7E where it is not part of valid UTF-8, and the backslash as \\xHH. The hash is
FNV-1a (64 bit, the low 48 as hex): of ids as 32-bit little-endian numbers; of the decoded text, a zero byte, and the
decoded text without special tokens.
"""
import json
import os
import random
import sys
import unicodedata

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from reference_tokenizers import UNIGRAM, load, unigram_json


def fnv(data, state=0xCBF29CE484222325):
    for byte in data:
        state = (state ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return state


def hash_ids(ids, state=0xCBF29CE484222325):
    return fnv(b"".join(i.to_bytes(4, "little") for i in ids), state)


def hexed(state):
    return format(state & 0xFFFFFFFFFFFF, "012x")


def escape(data):
    out = []
    for char in data.decode("utf-8", "surrogateescape"):
        if 0xDC80 <= ord(char) <= 0xDCFF:
            out.append("\\x%02X" % (ord(char) - 0xDC00))
        elif ord(char) < 0x20 or ord(char) == 0x7F or char == "\\":
            out.append("\\x%02X" % ord(char))
        elif char in "\u0085\u2028\u2029":
            out += ["\\x%02X" % b for b in char.encode()]
        else:
            out.append(char)
    return "".join(out).encode("utf-8")


# ---- texts ----

SCRIPTS = [  # ranges of assigned characters are drawn from these
    (0x0041, 0x007A), (0x00C0, 0x024F), (0x0250, 0x02AF), (0x0370, 0x03FF), (0x0400, 0x052F), (0x0530, 0x058F),
    (0x0590, 0x05FF), (0x0600, 0x06FF), (0x0700, 0x074F), (0x0780, 0x07BF), (0x07C0, 0x07FF), (0x0900, 0x097F),
    (0x0980, 0x09FF), (0x0A00, 0x0A7F), (0x0A80, 0x0AFF), (0x0B00, 0x0B7F), (0x0B80, 0x0BFF), (0x0C00, 0x0C7F),
    (0x0C80, 0x0CFF), (0x0D00, 0x0D7F), (0x0D80, 0x0DFF), (0x0E00, 0x0E7F), (0x0E80, 0x0EFF), (0x0F00, 0x0FFF),
    (0x1000, 0x109F), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x137F), (0x13A0, 0x13FF), (0x1400, 0x167F),
    (0x1680, 0x169F), (0x16A0, 0x16FF), (0x1780, 0x17FF), (0x1800, 0x18AF), (0x1E00, 0x1EFF), (0x1F00, 0x1FFF),
    (0x2C00, 0x2C5F), (0x2D30, 0x2D7F), (0x3040, 0x309F), (0x30A0, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),
    (0xA000, 0xA48F), (0xAC00, 0xD7A3), (0xFB00, 0xFDFF), (0xFF00, 0xFFEF), (0x10330, 0x1034F), (0x10400, 0x1044F),
    (0x12000, 0x123FF), (0x13000, 0x1342F), (0x1D400, 0x1D7FF), (0x20000, 0x2A6DF)]
SENTENCES = [
    "The quick brown fox jumps over the lazy dog.", "I'm sure you've seen it; she'll say they'd gone, haven't we?",
    "Können Sie mir bitte helfen? Größe: 42 €.", "Où est la bibliothèque ? C'est déjà l'été.", "¿Dónde está el baño, señor?",
    "Il pleut à verse aujourd'hui.", "Vad är klockan? Smörgåsbord på Åland.", "Zażółć gęślą jaźń.",
    "Příliš žluťoučký kůň úpěl ďábelské ódy.", "Съешь же ещё этих мягких французских булок.", "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "いろはにほへと ちりぬるを", "東京は今日も雨です。", "我能吞下玻璃而不伤身体。", "다람쥐 헌 쳇바퀴에 타고파", "أهلا بالعالم، كيف حالك؟",
    "שלום עולם", "नमस्ते दुनिया", "สวัสดีชาวโลก", "Xin chào thế giới, tiếng Việt có dấu.", "გამარჯობა მსოფლიო", "Բարեւ աշխարհ",
    "வணக்கம் உலகம்", "ሰላም ልዑል", "ខ្ញុំស្រឡាញ់ភាសា", "မင်္ဂလာပါ", "Ég get etið gler án þess að meiða mig."]
CODE = ["def f(x):\n    return x**2  # square\n", "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}\n", "std::vector<int> v{1, 2, 3};",
        "SELECT * FROM t WHERE id = 42;\n", "<div class=\"a\">&nbsp;</div>", "{\"key\": [1, 2.5, null, true]}", "#include <stdio.h>\r\n",
        "\n\n\n", "    ", "\t\t", "x = y if z else w\n", "a->b = c ? d : e;", "fn main() { println!(\"{:?}\", x); }\n", "0xDEADBEEF", "1e-10",
        "$ ls -la | grep foo > /dev/null 2>&1\n", "/* comment */", "snake_case_name", "CamelCaseName", "SCREAMING_CASE", "https://example.com/a?b=c&d=%20",
        "C:\\Users\\x", "\\alpha + \\beta_{i}^{2}", "==", "!=", "===", "<<=", "...", "::", "//", "--flag=value", "```python\n", "- item\n", "| a | b |\n"]
SPACES = [" ", "  ", "    ", "\t", "\n", "\r\n", "\r", "\n\n", " \n", "\n ", "\u00a0", "\u3000", "\u2003", "\u200a", "\u0085", "\u2028", "\u2029",
          "\u1680", "\u180e", "\u200b", "\u202f", "\u205f", "\ufeff", "\x0b", "\x0c", "\x1c", "\x1f"]
EMOJI = ["🙂", "😀", "👍", "👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "🇯🇵", "❤️", "☃", "🧑🏿‍🚀", "1️⃣", "🫠", "🐈‍⬛", "✊🏻", "\u200d", "\ufe0f", "\U0001F3FB", "🤷‍♀️", "🏴\U000E0067\U000E0062\U000E007F"]
NUMBERS = ["0", "7", "42", "123", "1234", "3.14159", "1,000,000", "2024-11-24", "12:30", "٣٤٥", "१२३", "½", "²", "Ⅷ", "①", "1st", "v2.0.1", "0x1F", "1e9", "-5", "+3"]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'LL", "'ſ", "\u2019s", "it's", "IT'S", "can't", "o'clock", "''", "'"]
MARKS = ["e\u0301", "a\u030a", "o\u0308\u0301", "\u1100\u1161\u11a8", "\u212b", "\u2126", "q\u0307\u0323", "\u0344", "n\u0303", "\u0958", "\ufb1d", "\u0340",
         "s\u0323\u0307", "\u0327\u0301", "\u0f73", "가\u11a8", "\u1112\u1161\u11ab"]
LITERALS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "<reponame>", "<file_sep>", "<filename>", "<gh_stars>", "<issue_start>",
            "<jupyter_code>", "<empty_output>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|im_start|", "|im_end|>", "<|im_start|>user\n",
            "<s>", "</s>", "<unk>", "[INST]", "<0x0A>", "<|reserved_special_token_1|>", "<|", "|>", "Ġ", "▁"]
BROKEN = [b"\x80", b"\xbf", b"\xc0\x80", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xf0\x9f", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf4\x90\x80\x80", b"\xff", b"\xfe",
          b"\xf8\x88\x80\x80\x80", b"\xe0\x9f\xbf", b"\xf0\x8f\xbf\xbf", b"\xe2\x28\xa1", b"\xc3\x28", b"\xf0\x9f\x28\x80", b"\xf0\x90\x28\xbc", b"\xed\xa0\xbd\xed\xb8\x80"]


def assigned(low, high, rng):
    while True:
        code = rng.randint(low, high)
        # U+0C3C came with Unicode 14; the NFC of the reference is older.
        if code != 0x0C3C and unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co"):
            return chr(code)


def word(rng):
    low, high = rng.choice(SCRIPTS)
    return "".join(assigned(low, high, rng) for _ in range(rng.randint(1, 7)))


def text(rng):
    """One text of a kind drawn at random, as bytes."""
    kind = rng.randrange(12)
    pick = lambda *lists: rng.choice(rng.choice(lists))
    glue = lambda: rng.choice(["", "", " ", " ", "  ", "\n"])
    some = lambda n, make: "".join(make() + glue() for _ in range(rng.randint(1, n)))
    if kind in (0, 1):
        out = some(7, lambda: word(rng))
    elif kind == 2:
        out = some(2, lambda: rng.choice(SENTENCES))
    elif kind == 3:
        out = "".join(rng.choice(CODE) for _ in range(rng.randint(1, 5)))
    elif kind == 4:
        out = "".join(rng.choice(SPACES) * rng.randint(1, 4) + rng.choice(["", "a", "I'm", "x1", "é", "。"]) for _ in range(rng.randint(1, 7)))
    elif kind == 5:
        out = some(6, lambda: pick(EMOJI, EMOJI, CONTRACTIONS, MARKS))
    elif kind == 6:
        out = some(6, lambda: pick(NUMBERS, NUMBERS, CONTRACTIONS, CODE))
    elif kind == 7:
        out = some(5, lambda: pick(LITERALS, LITERALS, SPACES, CONTRACTIONS, NUMBERS))
    elif kind == 8:
        out = some(9, lambda: pick(MARKS, MARKS, MARKS, EMOJI))
    elif kind == 9:
        out = "".join(assigned(0, 0x10FFFF, rng) for _ in range(rng.randint(1, 14)))
    elif kind == 10:
        parts = [rng.choice(BROKEN) if rng.random() < 0.5 else pick(SENTENCES, LITERALS, EMOJI, SPACES)[:12].encode() for _ in range(rng.randint(1, 6))]
        return b"".join(parts)
    else:
        out = "".join(pick(SENTENCES, CODE, SPACES, EMOJI, NUMBERS, CONTRACTIONS, LITERALS) for _ in range(rng.randint(1, 3)))
    data = out.encode()
    if rng.random() < 0.03:
        data = data[rng.randrange(len(data)):]  # may begin inside a character
    return data


RUNS = ["a", "A", " ", "\n", "\t", "=", "-", "ab", "the ", "0", "\u00e9", "\u65e5", "\U0001F642", "\u0301", "\u200d", "\r\n", " \n", "<", "'", "\u0e01", "<|im_start|>", "x ", "  a", "."]


def write_texts(reference, others, sentencepiece, path):
    rng = random.Random(20241124)
    records, block = [], []
    for number in range(10000):
        if number % 100 == 99:
            unit, count = RUNS[number // 100 % len(RUNS)].encode(), rng.choice([2, 3, 17, 64, 255, 1000, 4097])
        else:
            unit, count = text(rng), 1
        data = unit * count
        lossy = data.decode("utf-8", "replace")
        ids = reference.encode(lossy, add_special_tokens=False).ids
        decoded = [reference.decode(ids, skip_special_tokens=skip).encode() for skip in (False, True)]
        head = [b"S" if count == 1 else b"R", hexed(hash_ids(ids)).encode(), hexed(fnv(b"\0".join(decoded))).encode()]
        records.append(b" ".join(head + ([] if count == 1 else [str(count).encode()]) + [escape(unit)]))
        block.append(lossy)
        if number % 20 == 9:
            records.append(b"I " + " ".join(map(str, ids)).encode())
        if number % 20 == 19:
            hashes = []
            for other in others:
                state = 0xCBF29CE484222325
                for lossy in block:
                    state = hash_ids(other.encode(lossy, add_special_tokens=False).ids, state)
                hashes.append(hexed(state))
            records.append(("F " + " ".join(hashes)).encode())
            hashes = []
            for other in sentencepiece:
                encoded = [other.encode(lossy, add_special_tokens=False).ids for lossy in block]
                state = 0xCBF29CE484222325
                for ids in encoded:
                    state = hash_ids(ids, state)
                for ids in encoded:
                    state = fnv(other.decode(ids, skip_special_tokens=False).encode() + b"\0", state)
                hashes.append(hexed(state))
            records.append(("G " + " ".join(hashes)).encode())
            block = []
    with open(path, "wb") as out:
        out.write(b"\n".join(records) + b"\n")


# ---- conversations ----

LLAMA3_TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")


GEMMA3_TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
"""
# Llama 2's, in its short form.
LLAMA2_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
    "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ "
    "raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + "
    "'\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}")


def conversation(rng):
    """Messages without control tokens."""
    def content():
        while True:
            made = text(rng).decode("utf-8", "replace")
            # The engine's trim knows ASCII white space only.
            if not any(l in made for l in LITERALS) and made.strip() == made.strip(" \t\n\r\x0b\x0c"):
                return made
    messages = [["system", content()]] if rng.random() < 0.4 else []
    for turn in range(rng.randint(1, 4)):
        messages.append(["user", content()])
        messages.append(["assistant", content()])
    if rng.random() < 0.7:
        messages.pop()
    return messages


def write_conversations(models, path):
    rng = random.Random(3)
    with open(path, "w", encoding="utf-8") as out:
        for name, (tokenizer, template, bos, eos), count in models:
            fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, chat_template=template)
            out.write(json.dumps({"model": name, "template": template, "bos": bos, "eos": eos}, ensure_ascii=False) + "\n")
            for _ in range(count):
                messages, generate = conversation(rng), rng.random() < 0.6
                chat = [{"role": role, "content": content} for role, content in messages]
                ids = fast.apply_chat_template(chat, add_generation_prompt=generate)
                out.write(json.dumps({"generate": generate, "hash": hexed(hash_ids(ids)), "count": len(ids), "messages": messages},
                                     ensure_ascii=False) + "\n")


def main():
    smollm2, gemma3, folder, output = sys.argv[1:]
    reference, fields = load(smollm2)
    vocabulary = lambda name: load(os.path.join(folder, "ggml-vocab-%s.gguf" % name))
    others = [vocabulary(name) for name in ("gpt-2", "llama-bpe", "qwen2")]
    spm = [load(gemma3)[0], vocabulary("llama-spm")[0]]
    if not os.path.exists(UNIGRAM):
        os.makedirs(os.path.dirname(UNIGRAM), exist_ok=True)
        with open(UNIGRAM, "w", encoding="utf-8") as out:
            json.dump(unigram_json(3 * (SENTENCES + CODE) + __doc__.split("\n")), out, ensure_ascii=False)
    unigram = Tokenizer.from_file(UNIGRAM)
    write_texts(reference, [o[0] for o in others], spm + [unigram], os.path.join(output, "tokenizer_golden.txt"))
    template = lambda f: f["tokenizer.chat_template"].contents()

    def file(name):
        with open(os.path.join(folder, "templates", name), encoding="utf-8") as source:
            return source.read()
    write_conversations([("smollm2", (reference, template(fields), "<|im_start|>", "<|im_end|>"), 300),
                         ("qwen2", (others[2][0], template(others[2][1]), "<|endoftext|>", "<|im_end|>"), 100),
                         ("llama-bpe", (others[1][0], LLAMA3_TEMPLATE, "<|begin_of_text|>", "<|eot_id|>"), 100),
                         ("gemma3", (spm[0], GEMMA3_TEMPLATE, "<bos>", "<eos>"), 40),
                         ("llama-bpe", (others[1][0], file("meta-llama-Llama-3.1-8B-Instruct.jinja"), "<|begin_of_text|>", "<|eot_id|>"), 40),
                         ("qwen2", (others[2][0], file("Qwen-Qwen2.5-7B-Instruct.jinja"), "<|endoftext|>", "<|im_end|>"), 40),
                         ("llama-spm", (spm[1], LLAMA2_TEMPLATE, "<s>", "</s>"), 40),
                         ("llama-spm", (spm[1], file("mistralai-Mistral-Nemo-Instruct-2407.jinja"), "<s>", "</s>"), 40)],
                        os.path.join(output, "chat_golden.jsonl"))


if __name__ == "__main__":
    main()
