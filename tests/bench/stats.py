"""Statistics of the benchmarks: medians, percentiles, paired ratios with intervals, slopes, Markdown tables."""

import math
import random
import statistics

# Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
        2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)


def percentile(values, q):
    """The q-th percentile, q from 0 to 100, between neighbours by linear interpolation. Values must not be empty."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * q / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def mean_interval(values):
    """(mean, half width of its 95 % interval by Student's t); the half width is infinite for one value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.inf
    degrees = len(values) - 1
    t = _T95[degrees - 1] if degrees <= len(_T95) else 1.96
    return mean, t * statistics.stdev(values) / math.sqrt(len(values))


def paired_ratio(ours, theirs, samples=2000, seed=1):
    """(median of ours[i] / theirs[i], low, high): the 95 % interval is by bootstrap over the pairs.

    The two were measured in turn, so that pair i shares the machine's state.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError("paired_ratio needs two lists of one length")
    ratios = [a / b for a, b in zip(ours, theirs)]
    rng = random.Random(seed)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(samples))
    return statistics.median(ratios), percentile(medians, 2.5), percentile(medians, 97.5)


def ratio_cells(ours, theirs, digits=2):
    """The paired ratio and its interval as a table shows them; fewer than three pairs have no interval."""
    ratio, low, high = paired_ratio(ours, theirs)
    return f"{ratio:.{digits}f}", f"{low:.{digits}f} to {high:.{digits}f}" if len(ours) >= 3 else ""


def slope(xs, ys):
    """Least-squares slope of ys over xs."""
    mean_x, mean_y = statistics.fmean(xs), statistics.fmean(ys)
    square = sum((x - mean_x) ** 2 for x in xs)
    if square == 0:
        raise ValueError("slope needs two different x")
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys)) / square


def slope_interval(xs, rounds):
    """(mean slope, half width of its 95 % interval): one slope per round, each round a list of ys at xs."""
    return mean_interval([slope(xs, ys) for ys in rounds])


def table(header, rows):
    """A Markdown table, padded to be read as it is; the first column is text, the others are numbers."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))) + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
