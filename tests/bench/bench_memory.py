"""Resident memory of the real server after loading and after a load that fills the KV cache, against what it must hold:
the weights as they are kept, the KV cache and the steering bank.
"""

import argparse

import environment
import stats
import workers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=environment.default_model(), help="GGUF file or Hugging Face folder")
    parser.add_argument("--precision", default="file,bfloat16", help="comma-separated")
    parser.add_argument("--kv_cache_mib", type=int, default=128)
    options = parser.parse_args()

    rows = []
    for precision in options.precision.split(","):
        engine = workers.Engine(options.model, precision, kv_cache_mib=8)
        weights = engine.info["weight_bytes"]
        engine.close()
        server = workers.TrimtabServer(options.model, precision, kv_cache_mib=options.kv_cache_mib)
        try:
            kv_cache = options.kv_cache_mib * 2**20
            loaded, _ = server.resident_bytes()
            # Every prompt is new, so that the cache's blocks are used one after the other; twice what fits.
            tokens = 0
            while tokens * engine.info["kv_bytes_per_token"] < 2 * kv_cache:
                server.decode(16, 256, 16)
                tokens += 16 * 272
            bank = server.metric("trimtab_vector_cache_bytes")
            full, anonymous = server.resident_bytes()
        finally:
            server.close()
        for moment, resident in (("after loading", loaded), ("after the load", full)):
            must = weights + bank + kv_cache
            rows.append([f"{precision}, {moment}", f"{resident / 1e6:.0f}", f"{weights / 1e6:.0f}", f"{kv_cache / 1e6:.0f}",
                         f"{bank / 1e6:.0f}", f"{(resident - must) / 1e6:+.0f}"])
        rows.append([f"{precision}, after the load, not from files", f"{anonymous / 1e6:.0f}", "", "", "", ""])
    print(f"\n{environment.machine_line()}\n")
    print(stats.table(["resident memory, MB", "resident", "weights", "KV cache", "bank", "beyond (at most 250)"], rows))


if __name__ == "__main__":
    main()
