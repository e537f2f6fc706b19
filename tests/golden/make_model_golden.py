#!/usr/bin/env python3
"""Goldens of the models' forward passes, from transformers in float32.

Run by hand when the goldens should change; needs torch, transformers, tokenizers and safetensors:
  make_model_golden.py tiny          tests/golden/data/{llama,qwen2,gemma3,mistral}/tiny*: checkpoints and their goldens
  make_model_golden.py smollm2 GGUF TOKENIZER    tests/golden/data/llama/smollm2_{logits,greedy}.jsonl
  make_model_golden.py gemma3 GGUF               tests/golden/data/gemma3/gemma3_270m_{logits,greedy}.jsonl
GGUF is the file of SmolLM2-135M-Instruct (Q4_1) or Gemma-3-270M (Q4_K_M), which transformers de-quantises to float32;
TOKENIZER a folder with SmolLM2's tokenizer.
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM,
    MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM)

DATA = pathlib.Path(__file__).resolve().parent / "data"
PROMPT = 40  # tokens of the 48 of a tiny golden; the others are the answer whose gradient is kept
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


def make_tiny(name, model_class, config_class, dtype, shard, **config):
    torch.manual_seed(7)
    path = DATA / name
    path.mkdir(parents=True, exist_ok=True)
    sizes = dict(vocab_size=260, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=256,
                 eos_token_id=257)
    model = model_class(config_class(attn_implementation="eager", **{**sizes, **config})).eval()
    for key, tensor in model.named_parameters():
        # Norms near 1 (Gemma holds what they differ from it by), the rest large enough for attention and logits far
        # from uniform.
        if "norm" in key:
            tensor.data = (0 if model_class is Gemma3ForCausalLM else 1) + 0.2 * torch.randn_like(tensor)
        else:
            tensor.data = 0.25 * torch.randn_like(tensor)
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
    golden.update({f"block_output.{i}": state.reshape(48, -1) for i, state in enumerate(states)})
    # Of the answer's log-probability with respect to what enters the first block.
    embeddings = model.get_input_embeddings()(tokens).detach().requires_grad_(True)
    log_prob = model(inputs_embeds=embeddings).logits[0].log_softmax(-1)
    answer = tokens[0, PROMPT:]
    log_prob[torch.arange(PROMPT - 1, 47), answer].sum().backward()
    golden["gradient"] = embeddings.grad[0]
    save_file({key: value.contiguous() for key, value in golden.items()}, str(path / "golden.safetensors"))
    model.to(dtype).save_pretrained(path, max_shard_size="40KB" if shard else "1GB")
    (path / "generation_config.json").unlink(missing_ok=True)
    byte_tokenizer(path)


def make_all_tiny():
    make_tiny("llama/tiny", LlamaForCausalLM, LlamaConfig, torch.float32, False, head_dim=16, tie_word_embeddings=False,
              rope_theta=10000.0,
              rope_scaling={"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                            "original_max_position_embeddings": 32})
    make_tiny("llama/tiny_biased", LlamaForCausalLM, LlamaConfig, torch.bfloat16, True, tie_word_embeddings=True,
              attention_bias=True, mlp_bias=True, rope_theta=500.0, rope_scaling={"rope_type": "linear", "factor": 2.0})
    make_tiny("qwen2/tiny", Qwen2ForCausalLM, Qwen2Config, torch.float32, False, hidden_size=56, num_attention_heads=7,
              num_key_value_heads=1, tie_word_embeddings=True, rope_theta=1000000.0)
    make_tiny("qwen2/tiny_window", Qwen2ForCausalLM, Qwen2Config, torch.float32, False, tie_word_embeddings=False,
              use_sliding_window=True, sliding_window=16, max_window_layers=1)
    make_tiny("mistral/tiny", MistralForCausalLM, MistralConfig, torch.float32, False, head_dim=16, sliding_window=16)
    make_tiny("gemma3/tiny", Gemma3ForCausalLM, Gemma3TextConfig, torch.float32, False, num_hidden_layers=7,
              num_key_value_heads=1, head_dim=16, sliding_window=16, query_pre_attn_scalar=24, rope_theta=1000000.0,
              rope_local_base_freq=10000.0, rope_scaling={"rope_type": "linear", "factor": 8.0})


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


LONG = 640  # tokens of Gemma's last prompt: more than its window of 512


def write_goldens(model, prompts, length, scored, name):
    """Greedy continuations of all prompts, and logits of the (place, first position) in `scored`."""
    greedy = [None] * len(prompts)
    name.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for size in sorted({len(prompt) for prompt in prompts}):  # a batch of equal lengths needs no padding
            same = [i for i, prompt in enumerate(prompts) if len(prompt) == size]
            batch = torch.tensor([prompts[i] for i in same])
            out = model.generate(batch, max_new_tokens=length, min_new_tokens=length, do_sample=False,
                                 repetition_penalty=1.0, pad_token_id=0, eos_token_id=None,
                                 attention_mask=torch.ones_like(batch))
            for i, row in zip(same, out):
                greedy[i] = row[size:].tolist()
        with open(f"{name}_greedy.jsonl", "w") as file:
            for prompt, tokens in zip(prompts, greedy):
                file.write(json.dumps({"prompt": prompt, "tokens": tokens}, separators=(",", ":")) + "\n")
        with open(f"{name}_logits.jsonl", "w") as file:
            for i, first in scored:
                tokens = prompts[i] + greedy[i][:16]
                logits = model(torch.tensor([tokens]), logits_to_keep=len(tokens) - first).logits[0].double()
                top = logits.topk(TOP, dim=-1)
                for row, values in enumerate(top.values):
                    file.write(json.dumps({
                        "tokens": tokens if row == 0 else [], "ids": top.indices[row].tolist(),
                        "logits": [round(v, 5) for v in values.tolist()],
                        "logsumexp": round(logits[row].logsumexp(-1).item(), 5)}, separators=(",", ":")) + "\n")


def load_gguf(path):
    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).float().eval()


def make_smollm2(gguf, tokenizer_folder):
    prompts = encode_all(AutoTokenizer.from_pretrained(tokenizer_folder))
    scored = [(i, 0) for i in LOGITS + [len(RAW)]]
    write_goldens(load_gguf(pathlib.Path(gguf)), prompts, 64, scored, DATA / "llama" / "smollm2")


def make_gemma3(gguf):
    import reference_tokenizers  # transformers' own conversion of this vocabulary is wrong

    gguf = pathlib.Path(gguf)
    tokenizer, _ = reference_tokenizers.load(gguf)
    prompts = [[2] + tokenizer.encode(text, add_special_tokens=False).ids for text in RAW[:20]]
    assert prompts[0] == [2, 818, 5279, 529, 7001, 563]
    prompts.append((prompts[1] + sum((prompt[1:] for prompt in prompts), []) * 10)[:LONG])
    write_goldens(load_gguf(gguf), prompts, 32, [(0, 0), (2, 0), (len(RAW[:20]), LONG - 4)],
                  DATA / "gemma3" / "gemma3_270m")


if __name__ == "__main__":
    {"tiny": make_all_tiny, "smollm2": make_smollm2, "gemma3": make_gemma3}[sys.argv[1]](*sys.argv[2:])
