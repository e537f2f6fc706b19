"""Makes preference pairs from TruthfulQA, ParaDetox and the A/B questions of CAA, for //tools/study and bench_fit.

Usage: make_dataset_pairs.py {truthfulqa MC_TASK.json | paradetox PARADETOX.tsv | caa GENERATE_AB.json} OUT_PREFIX
       [--train N] [--held_out N] [--seed S]
Writes OUT_PREFIX.train.jsonl and OUT_PREFIX.held_out.jsonl. No question is in both. A study takes them as one data
set, OUT_PREFIX.train.jsonl+OUT_PREFIX.held_out.jsonl, and makes its own split.
"""

import argparse
import json
import random


def truthfulqa(path, rng):
    """The best answer against one false answer, drawn at random."""
    with open(path, encoding="utf-8") as file:
        rows = json.load(file)
    for row in rows:
        targets = row["mc1_targets"]
        best = next(answer for answer, label in targets.items() if label == 1)
        false = rng.choice([answer for answer, label in targets.items() if label == 0])
        yield row["question"], best, false


def paradetox(path, rng):
    """The first neutral rewording of a toxic comment against the comment itself."""
    del rng
    with open(path, encoding="utf-8") as file:
        next(file)
        for line in file:
            toxic, *neutral = line.rstrip("\n").split("\t")
            if neutral and neutral[0] and neutral[0].lower() != toxic.lower():
                yield "Write a comment for an online forum.", neutral[0], toxic


def caa(path, rng):
    """The letter that shows the behaviour (sycophancy, hallucination, refusal) against the other."""
    del rng
    with open(path, encoding="utf-8") as file:
        rows = json.load(file)
    for row in rows:
        yield row["question"], row["answer_matching_behavior"].strip(), row["answer_not_matching_behavior"].strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("truthfulqa", "paradetox", "caa"))
    parser.add_argument("source")
    parser.add_argument("out_prefix")
    parser.add_argument("--train", type=int, default=50)
    parser.add_argument("--held_out", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    pairs = list({"truthfulqa": truthfulqa, "paradetox": paradetox, "caa": caa}[options.kind](options.source, rng))
    rng.shuffle(pairs)
    parts = {"train": pairs[: options.train], "held_out": pairs[options.train : options.train + options.held_out]}
    for name, part in parts.items():
        with open("%s.%s.jsonl" % (options.out_prefix, name), "w", encoding="utf-8") as file:
            for prompt, preferred, dispreferred in part:
                row = {"prompt": prompt, "preferred": preferred, "dispreferred": dispreferred}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
