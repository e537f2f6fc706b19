"""Makes probe_golden.txt, in this file's folder: what probes of attention heads find, with scikit-learn and PyTorch.

Usage: python3 make_probe_golden.py
The stored file was made with scikit-learn 1.9.1 and PyTorch 2.11.0 (Python 3.11), on one thread.

Two cases. The first line of each: heads, training answers, unseen answers, numbers of a head, scikit-learn's C, passes of
the networks. Then a line each: training values [heads, answers, numbers], training labels, unseen values, unseen labels;
of logistic regressions the coefficients [heads, numbers], intercepts, accuracies on the unseen answers and
cross-entropies; of networks the best accuracies and the cross-entropies of the same pass. The networks begin as
`parameter` says and see the training answers in the order that `order` says.
"""
import pathlib

import numpy
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

WIDTH = 16


def numbers(values, digits):
    return " ".join(f"{x:.{digits}g}" for x in numpy.asarray(values).ravel())


def parameter(kind, shape):
    """Parameter number `kind` (weights and biases of the first layer, of the norm, of the last) of all heads."""
    index = numpy.arange(numpy.prod(shape), dtype=numpy.float64)
    offset = 1.0 if kind == 2 else 0.0
    return (offset + 0.3 * numpy.sin(0.7 * index + kind)).astype(numpy.float32).reshape(shape)


def order(count, number):
    return [(7 * i + number) % count for i in range(count)]


def network(head, heads, size):
    model = torch.nn.Sequential(
        torch.nn.Linear(size, WIDTH),
        torch.nn.BatchNorm1d(WIDTH),
        torch.nn.ReLU(),
        torch.nn.Linear(WIDTH, 1),
        torch.nn.Sigmoid(),
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.from_numpy(parameter(0, (heads, size, WIDTH))[head].T.copy()))
        model[0].bias.copy_(torch.from_numpy(parameter(1, (heads, WIDTH))[head]))
        model[1].weight.copy_(torch.from_numpy(parameter(2, (heads, WIDTH))[head]))
        model[1].bias.copy_(torch.from_numpy(parameter(3, (heads, WIDTH))[head]))
        model[3].weight.copy_(torch.from_numpy(parameter(4, (heads, WIDTH))[head])[None])
        model[3].bias.copy_(torch.tensor([parameter(5, (heads,))[head]]))
    return model


def train(model, values, labels, unseen, unseen_labels, passes):
    """Accuracy and cross-entropy of the best pass."""
    adam = torch.optim.Adam(model.parameters(), lr=5e-4, weight_decay=1e-4)
    best = (-1.0, -numpy.inf)
    for number in range(passes):
        model.train()
        places = order(len(labels), number)
        for begin in range(0, len(places), 32):
            batch = places[begin : begin + 32]
            if len(batch) == 1:
                continue
            loss = torch.nn.functional.binary_cross_entropy(model(values[batch])[:, 0], labels[batch])
            adam.zero_grad()
            loss.backward()
            adam.step()
        model.eval()
        with torch.no_grad():
            said = model(unseen)[:, 0]
            right = ((said > 0.5) == (unseen_labels > 0.5)).double().mean().item()
            lost = torch.nn.functional.binary_cross_entropy(said.double(), unseen_labels.double()).item()
        best = max(best, (right, -lost))
    return best[0], -best[1]


def cases():
    random = numpy.random.default_rng(11)
    for heads, count, unseen_count, size, c, passes in ((3, 65, 30, 5, 1.0, 40), (2, 20, 12, 30, 0.25, 10)):
        labels = numpy.arange(count) % 2
        unseen_labels = numpy.arange(unseen_count) % 2
        signal = random.standard_normal((heads, size)) * numpy.linspace(0.2, 0.8, heads)[:, None]

        def draw(of):
            noise = random.standard_normal((heads, len(of), size))
            return (noise + (2 * of[None, :, None] - 1) * signal[:, None]).astype(numpy.float32)

        values, unseen = draw(labels), draw(unseen_labels)
        yield f"{heads} {count} {unseen_count} {size} {c} {passes}"
        yield numbers(values, 9)
        yield numbers(labels, 1)
        yield numbers(unseen, 9)
        yield numbers(unseen_labels, 1)
        probes = [
            LogisticRegression(C=c, tol=1e-12, max_iter=100000).fit(head.astype(numpy.float64), labels)
            for head in values
        ]
        yield numbers([probe.coef_ for probe in probes], 10)
        yield numbers([probe.intercept_ for probe in probes], 10)
        yield numbers([probe.score(head, unseen_labels) for probe, head in zip(probes, unseen)], 10)
        yield numbers(
            [log_loss(unseen_labels, probe.predict_proba(head)) for probe, head in zip(probes, unseen)], 10
        )
        scores = [
            train(
                network(head, heads, size),
                torch.from_numpy(values[head]),
                torch.from_numpy(labels.astype(numpy.float32)),
                torch.from_numpy(unseen[head]),
                torch.from_numpy(unseen_labels.astype(numpy.float32)),
                passes,
            )
            for head in range(heads)
        ]
        yield numbers([right for right, _ in scores], 10)
        yield numbers([lost for _, lost in scores], 10)


torch.set_num_threads(1)
FOLDER = pathlib.Path(__file__).resolve().parent
(FOLDER / "probe_golden.txt").write_text("\n".join(cases()) + "\n")
