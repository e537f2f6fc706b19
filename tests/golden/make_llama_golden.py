#!/usr/bin/env python3
"""Goldens of the Llama forward pass, from transformers in float32.

Run by hand when the goldens should change; needs torch, transformers, tokenizers and safetensors:
  make_llama_golden.py tiny                 tests/golden/data/llama/{tiny,tiny_biased}: checkpoints and their goldens
  make_llama_golden.py smollm2 GGUF TOKENIZER    tests/golden/data/llama/smollm2_{logits,greedy}.jsonl
GGUF is SmolLM2-135M-Instruct's file (Q4_1), which transformers de-quantises to float32; TOKENIZER a folder with its
tokenizer.
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

DATA = pathlib.Path(__file__).resolve().parent / "data" / "llama"
TOP = 64  # logits kept per position


def byte_tokenizer(path):
    """One token a byte, then four control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<|bos|>", "<|end|>", "<|user|>", "<|pad|>")])
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|pad|>", "add_bos_token": True,
        "chat_template": "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}"}, indent=1) + "\n")


def make_tiny(name, dtype, shard, **config):
    torch.manual_seed(7)
    path = DATA / name
    path.mkdir(parents=True, exist_ok=True)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=260, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=256, eos_token_id=257,
        attn_implementation="eager", **config)).eval()
    for key, tensor in model.named_parameters():
        # Norms near 1, the rest large enough for attention and logits far from uniform.
        tensor.data = 1 + 0.2 * torch.randn_like(tensor) if "norm" in key else 0.25 * torch.randn_like(tensor)
        tensor.data = tensor.data.to(dtype).float()
    tokens = torch.randint(0, 260, (1, 48))
    with torch.no_grad():
        states = []
        hooks = [layer.register_forward_hook(lambda _, __, out: states.append(out[0] if isinstance(out, tuple) else out))
                 for layer in model.model.layers]
        logits = model(tokens).logits[0]
        for hook in hooks:
            hook.remove()
    golden = {"tokens": tokens[0].float(), "logits": logits}
    golden.update({f"block_output.{i}": state.reshape(48, 32) for i, state in enumerate(states)})
    save_file({key: value.contiguous() for key, value in golden.items()}, str(path / "golden.safetensors"))
    model.to(dtype).save_pretrained(path, max_shard_size="40KB" if shard else "1GB")
    (path / "generation_config.json").unlink(missing_ok=True)
    byte_tokenizer(path)


RAW = [
    "The capital of France is", "Once upon a time, in a small village by the sea,", "def fibonacci(n):\n    ",
    "Water boils at", "The three laws of motion state that", "Dear Sir or Madam,\n\nI am writing to",
    "1, 1, 2, 3, 5, 8,", "In 1969, humans first", "The opposite of hot is", "A recipe for tomato soup:\n1.",
    "SELECT name, age FROM users WHERE", "The mitochondria is the", "To be, or not to be,", "Roses are red,",
    "Photosynthesis is the process by which", "import numpy as np\n\n", "The largest planet in the solar system",
    "Les chats sont", "Once the rain had stopped,", "The price of bread rose because",
    "An algorithm is", "My favourite season is", "The quick brown fox", "Question: What is 7 times 8?\nAnswer:",
    "In conclusion,"]
CHAT = [
    "What is the capital of Italy?", "Write a haiku about autumn.", "How do I boil an egg?", "Explain gravity to a child.",
    "Give me three tips for better sleep.", "Who wrote Hamlet?", "What is 12 + 30?", "Translate 'good morning' to French.",
    "Summarise the water cycle in two sentences.", "Why is the sky blue?", "Name five fruits.",
    "Write a short apology to a customer whose order was late.", "What does HTTP stand for?", "Tell me a joke.",
    "How far away is the moon?", "List the primary colours.", "What should I pack for a beach trip?",
    "Is a tomato a fruit or a vegetable?", "Write one sentence about dogs.", "How does a bicycle stay upright?",
    "What is the difference between a virus and a bacterium?", "Suggest a name for a bakery.", "What is recursion?",
    "Describe the taste of coffee.", "How many days are there in a leap year?"]
LOGITS = [0, 2, 17]  # places in RAW whose logits are kept, and CHAT[0]


def encode_all(tokenizer):
    prompts = [tokenizer(text, add_special_tokens=False).input_ids for text in RAW]
    return prompts + [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True)
        for text in CHAT]


def make_smollm2(gguf, tokenizer_folder):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    gguf = pathlib.Path(gguf)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).float().eval()
    prompts = encode_all(tokenizer)
    DATA.mkdir(parents=True, exist_ok=True)
    greedy = [None] * len(prompts)
    with torch.no_grad():
        for length in sorted({len(prompt) for prompt in prompts}):  # a batch of equal lengths needs no padding
            same = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
            batch = torch.tensor([prompts[i] for i in same])
            out = model.generate(batch, max_new_tokens=64, min_new_tokens=64, do_sample=False, repetition_penalty=1.0,
                                 pad_token_id=0, eos_token_id=None, attention_mask=torch.ones_like(batch))
            for i, row in zip(same, out):
                greedy[i] = row[length:].tolist()
        with open(DATA / "smollm2_greedy.jsonl", "w") as file:
            for prompt, tokens in zip(prompts, greedy):
                file.write(json.dumps({"prompt": prompt, "tokens": tokens}, separators=(",", ":")) + "\n")
        with open(DATA / "smollm2_logits.jsonl", "w") as file:
            for i in LOGITS + [len(RAW)]:
                tokens = prompts[i] + greedy[i][:16]
                logits = model(torch.tensor([tokens])).logits[0].double()
                top = logits.topk(TOP, dim=-1)
                for position, values in enumerate(top.values):
                    file.write(json.dumps({
                        "tokens": tokens if position == 0 else [], "ids": top.indices[position].tolist(),
                        "logits": [round(v, 5) for v in values.tolist()],
                        "logsumexp": round(logits[position].logsumexp(-1).item(), 5)}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "tiny":
        make_tiny("tiny", torch.float32, False, head_dim=16, tie_word_embeddings=False, rope_theta=10000.0,
                  rope_scaling={"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                "original_max_position_embeddings": 32})
        make_tiny("tiny_biased", torch.bfloat16, True, tie_word_embeddings=True, attention_bias=True, mlp_bias=True,
                  rope_theta=500.0, rope_scaling={"rope_type": "linear", "factor": 2.0})
    else:
        make_smollm2(sys.argv[2], sys.argv[3])
