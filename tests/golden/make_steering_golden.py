"""Makes steering_golden.txt: eigenvalues, explained share and first direction of un-centred PCA by numpy's SVD.

Usage: python3 make_steering_golden.py > steering_golden.txt   (numpy 1.24 or later)
"""
import numpy

random = numpy.random.default_rng(7)
for m, d in ((3, 5), (12, 8), (70, 6)):
    rows = (random.standard_normal((m, d)) + 0.5).astype(numpy.float32)
    _, s, v = numpy.linalg.svd(rows.astype(numpy.float64), full_matrices=False)
    direction = v[0] * numpy.sign(v[0] @ rows.mean(0))
    print(m, d)
    print(*(f"{x:.9g}" for x in rows.ravel()))
    print(*(f"{x:.12g}" for x in s**2))
    print(f"{s[0] ** 2 / (s ** 2).sum():.12g}")
    print(*(f"{x:.12g}" for x in direction))
