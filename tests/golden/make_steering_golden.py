"""Makes pca_golden.txt with scikit-learn and quadrature_golden.txt with numpy and scipy, in this file's folder.

Usage: python3 make_steering_golden.py
The stored files were made with scikit-learn 1.9.1, numpy 2.4.6 and scipy 1.17.1 (Python 3.11).

pca_golden.txt, per case: rows and columns; the rows; the leading eigenvalues of rows * rows^T, their count before them;
the first one's share of all; the leading directions, each with the sign that its mean projection is positive.
quadrature_golden.txt: "rule NAME N", then the points and the weights on [0, 1]; "integral FUNCTION VALUE".
"""
import pathlib

import numpy
from scipy import integrate
from sklearn.decomposition import PCA, TruncatedSVD

FOLDER = pathlib.Path(__file__).resolve().parent
DIRECTIONS = 3


def numbers(values, digits):
    return " ".join(f"{x:.{digits}g}" for x in values)


def pca_cases():
    random = numpy.random.default_rng(7)
    for m, d in ((4, 5), (12, 8), (70, 6)):
        rows = (random.standard_normal((m, d)) + 0.5).astype(numpy.float32)
        exact = rows.astype(numpy.float64)
        # TruncatedSVD is scikit-learn's principal component analysis without centring.
        svd = TruncatedSVD(n_components=min(m, d) - 1, algorithm="arpack", tol=0, random_state=0).fit(exact)
        # Its centred PCA of the rows and their mirror images, whose mean is zero, is a second opinion.
        mirrored = PCA(n_components=DIRECTIONS, svd_solver="full").fit(numpy.vstack([exact, -exact]))
        for own, other in zip(svd.components_, mirrored.components_):
            assert abs(abs(own @ other) - 1) < 1e-12
        yield f"{m} {d}"
        yield numbers(rows.ravel(), 9)
        yield f"{len(svd.singular_values_)} " + numbers(svd.singular_values_**2, 14)
        yield f"{mirrored.explained_variance_ratio_[0]:.14g}"
        for direction in svd.components_[:DIRECTIONS]:
            yield numbers(direction * numpy.sign(direction @ exact.mean(0)), 14)


def fejer2(n):
    """The rule that integrates the polynomial through cos(j pi / (n + 1)): its weights from their definition."""
    points = numpy.sort(numpy.cos(numpy.arange(1, n + 1) * numpy.pi / (n + 1)))
    # Weights integrate every Legendre polynomial below degree n exactly; only the first has an integral, 2.
    moments = numpy.zeros(n)
    moments[0] = 2
    return points, numpy.linalg.solve(numpy.polynomial.legendre.legvander(points, n - 1).T, moments)


def quadrature_cases():
    for name, rule, sizes in (
        ("gauss_legendre", numpy.polynomial.legendre.leggauss, (1, 2, 5, 20, 64)),
        ("fejer2", fejer2, (1, 3, 15, 31, 63, 127)),
    ):
        for n in sizes:
            points, weights = rule(n)
            yield f"rule {name} {n}"
            yield numbers((1 + points) / 2, 17)
            yield numbers(weights / 2, 17)
    for name, function in (
        ("sigmoid", lambda x: 1 / (1 + numpy.exp(-12 * (x - 0.3)))),
        ("wave", lambda x: numpy.exp(x) * numpy.sin(9 * x)),
        ("runge", lambda x: 1 / (1 + 25 * (2 * x - 1) ** 2)),
    ):
        value, error = integrate.quad(function, 0, 1, epsabs=1e-14, epsrel=1e-14, limit=500)
        assert error < 1e-12
        yield f"integral {name} {value:.17g}"


for file, lines in (("pca_golden.txt", pca_cases()), ("quadrature_golden.txt", quadrature_cases())):
    (FOLDER / file).write_text("\n".join(lines) + "\n")
