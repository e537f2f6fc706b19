"""Runs `bazel test` and ends with one line that counts test cases: "N passed, N failed, N skipped".

Usage: run_tests.py bazel [startup options] test [options] targets. Exits with Bazel's status.
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.parse
import xml.etree.ElementTree as ElementTree


def test_files(events):
    """Yields (label, passed, path of test.xml or None) for each test target that Bazel reported."""
    results = {}
    for line in events:
        event = json.loads(line)
        identity = event.get("id", {}).get("testResult")
        if not identity:
            continue
        # Without a result it was not run: its build failed, or another target's did.
        result = event.get("testResult", {})
        xml = None
        for output in result.get("testActionOutput", []):
            if output.get("name") == "test.xml":
                xml = urllib.parse.unquote(urllib.parse.urlparse(output["uri"]).path)
        passed = result.get("status") in ("PASSED", "FLAKY")
        key = (identity["label"], identity.get("shard", 1), identity.get("run", 1))
        results[key] = (identity["label"], passed, xml)
    return results.values()


def count(xml):
    """Returns (passed, failed, skipped) cases of one GoogleTest report, or None without one."""
    try:
        root = ElementTree.parse(xml).getroot()
    except (OSError, TypeError, ElementTree.ParseError):
        return None
    passed = failed = skipped = 0
    for case in root.iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None or case.get("result") == "skipped":
            skipped += 1
        elif case.get("status") != "notrun":
            passed += 1
    return passed, failed, skipped


def main():
    command = sys.argv[1:]
    at = command.index("test")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "events.json")
        command.insert(at + 1, "--build_event_json_file=" + path)
        status = subprocess.call(command)
        try:
            with open(path, encoding="utf-8") as events:
                results = list(test_files(events))
        except OSError:
            results = []
        passed = failed = skipped = 0
        for label, target_passed, xml in results:
            cases = count(xml)
            if cases is None or (not target_passed and cases[1] == 0):
                # A crash or a time-out leaves no report, or one without a failure: the target is one failed case.
                cases = (1, 0, 0) if target_passed else (0, 1, 0)
                if not target_passed:
                    print("FAILED " + label)
            passed, failed, skipped = passed + cases[0], failed + cases[1], skipped + cases[2]
    if status not in (0, 3, 4) and not failed:
        print("the build failed (bazel's exit status: %d)" % status)
        failed = 1
    print("%d passed, %d failed" % (passed, failed) + (", %d skipped" % skipped if skipped else ""), flush=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
