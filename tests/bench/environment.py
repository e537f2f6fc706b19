"""Where the benchmarks find things, and how they make their peers: llama.cpp, built from its pinned sources, and a
virtual environment with vLLM's CPU build and transformers. Both live in the cache folder and are made once.
"""

import datetime
import fcntl
import hashlib
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys

RUNFILES = pathlib.Path.cwd()  # bazel run starts programs there
LLAMA_TARGETS = ("llama-bench", "llama-batched-bench", "llama-server")
LLAMA_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_SUBPROCESS=OFF")

# Each program gets the waiting policy that it is best with: what the caller's shell has set would slow a peer down
# (llama.cpp decodes at a third of its speed with passive waiting).
for _name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
    os.environ.pop(_name, None)


def say(text):
    print(text, file=sys.stderr, flush=True)


def cache():
    """The cache folder of ./bazelw, with a part of its own for benchmarks."""
    base = os.environ.get("TRIMTAB_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "trimtab")
    path = pathlib.Path(base) / "bench"
    path.mkdir(parents=True, exist_ok=True)
    return path


def program(name):
    """A program built by Bazel, by its path in the checkout: "server/trimtab"."""
    return str(RUNFILES / name)


def default_model():
    return str(RUNFILES.parent / "trimtab_models" / "SmolLM2-135M-Instruct.Q4_1.gguf")


def machine_line():
    """One line for the head of a table: processor, cores, memory, date."""
    model = "unknown processor"
    flags = set()
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            if key.strip() == "flags":
                flags = set(value.split())
                break
    with open("/proc/meminfo", encoding="utf-8") as file:
        memory = int(file.readline().split()[1]) / 2**20
    extra = [name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if name in flags]
    return (f"{model} ({platform.machine()}, {' '.join(extra)}), {os.cpu_count()} cores, {memory:.0f} GiB, "
            f"{datetime.date.today().isoformat()}")


def warn_if_busy():
    """Says so when other processes have used the cores in the last minute: figures are then noise."""
    load = os.getloadavg()[0]
    if load > 0.4 * os.cpu_count():
        say(f"WARNING: the machine is busy (load {load:.1f}); these figures will be noisy")


def machine_limits(earlier=None):
    """What this machine can do at most: the better of two measurements, as machine_limits.cc describes them."""
    now = json.loads(subprocess.run([program("tests/bench/machine_limits")], stdout=subprocess.PIPE, check=True).stdout)
    return {key: max(value, earlier[key]) for key, value in now.items()} if earlier else now


def _run(command, log, **options):
    with open(log, "ab") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False, **options)
    if done.returncode != 0:
        tail = pathlib.Path(log).read_text(errors="replace").splitlines()[-15:]
        raise SystemExit(f"failed: {' '.join(map(str, command))}\n" + "\n".join(tail) + f"\nwhole log: {log}")


def _made(folder, key, make):
    """Runs make() unless `folder` was made whole from the same key before. One maker at a time, over processes."""
    stamp = folder / ".made_from"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(folder.name + ".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != key:
            stamp.unlink(missing_ok=True)
            make()
            stamp.write_text(key)
    return folder


def _pin(file, name):
    for line in file.read_text().splitlines():
        if line.startswith(name + "=="):
            return line
    raise SystemExit(f"{file} has no line for {name}")


def llama_cpp():
    """Folder with llama-bench, llama-batched-bench and llama-server, built for this processor (about 10 minutes)."""
    pin = _pin(RUNFILES / "third_party" / "wheels.txt", "llama-cpp-python")
    folder = cache() / "llama_cpp"
    log = cache() / "llama_cpp.log"

    def make():
        say(f"building llama.cpp once, with one job at low priority (log: {log})")
        sources = folder / "src"
        if not sources.exists():
            download = folder / "download"
            download.mkdir(exist_ok=True)
            requirement = download / "requirement.txt"
            requirement.write_text(pin + "\n")
            _run([sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--require-hashes",
                  "--no-binary", "llama-cpp-python", "-d", download, "-r", requirement], log)
            archive = next(download.glob("*.tar.gz"))
            _run(["tar", "-xzf", archive, "-C", download, "--wildcards", "*/vendor/llama.cpp/*"], log)
            shutil.move(next(download.glob("*/vendor/llama.cpp")), sources)
            shutil.rmtree(download)
        _run(["cmake", "-S", sources, "-B", folder / "build", *LLAMA_OPTIONS], log)
        _run(["nice", "-n", "19", "cmake", "--build", folder / "build", "-j1", "--target", *LLAMA_TARGETS], log)

    key = hashlib.sha256("\n".join([pin, *LLAMA_OPTIONS, *LLAMA_TARGETS]).encode()).hexdigest()
    return _made(folder, key, make) / "build" / "bin"


def peer_python():
    """Interpreter of the environment with PyTorch, vLLM's CPU build and transformers (about 6 GB)."""
    requirements = RUNFILES / "tests" / "bench" / "peers.txt"
    folder = cache() / "python"
    log = cache() / "python.log"

    def make():
        say(f"installing vLLM and transformers once (log: {log})")
        shutil.rmtree(folder)
        _run(["/usr/bin/python3", "-m", "venv", folder], log)
        _run(["nice", "-n", "19", folder / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check",
              "--no-cache-dir", "--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", requirements], log)

    key = hashlib.sha256(requirements.read_bytes()).hexdigest()
    return str(_made(folder, key, make) / "bin" / "python")


def captum():
    """Folder with captum for peer_python()."""
    python = peer_python()
    requirements = RUNFILES / "tests" / "bench" / "captum.txt"
    folder = cache() / "captum"

    def make():
        say("installing captum once")
        shutil.rmtree(folder)
        _run([python, "-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir", "--no-deps",
              "--only-binary", ":all:", "--require-hashes", "--target", folder, "-r", requirements], cache() / "captum.log")

    return str(_made(folder, hashlib.sha256(requirements.read_bytes()).hexdigest(), make))


def dequantized_copy(model):
    """Folder with `model` in the Hugging Face layout, bfloat16, as the peers read it; its float32 form is checked
    against the goldens of Trimtab's own tests when it is the shipped model."""
    python = peer_python()
    with open(model, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache() / f"copy-{digest[:16]}"
    script = RUNFILES / "tests" / "bench" / "make_copy.py"
    golden = RUNFILES / "tests" / "golden" / "data" / "llama" / "smollm2_greedy.jsonl"

    def make():
        say("writing the de-quantised copy once")
        _run([python, script, model, folder, golden], cache() / "copy.log")

    return str(_made(folder, digest + hashlib.sha256(script.read_bytes()).hexdigest(), make))
