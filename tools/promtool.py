#!/usr/bin/env python3
"""Check what Prometheus and Grafana get from us, in ops/, with Prometheus' own promtool.

    promtool.py fetch
        Print the path of a promtool: the one on PATH, else that of Debian's package `prometheus`, which is unpacked
        into .tools/ and not installed, so that no service is started.

    promtool.py check
        Check the rules and the example of a configuration, run the rules' tests, and check every expression of the
        dashboard as if it were a rule. Without a promtool it says so loudly, and passes.

Python 3.8 or newer, standard library only. Diagnostics go to stderr, so that the stdout of fetch holds nothing but the
path.
"""

import argparse
import glob
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
RULES = ROOT / "ops" / "prometheus"
DASHBOARDS = ROOT / "ops" / "grafana"
UNPACKED = ROOT / ".tools" / "prometheus"

# What Grafana puts in the place of its variables; an interval where one is wanted, else what matches everything.
VARIABLES = {"$__rate_interval": "5m", "$__range": "1h"}


def fail(message):
    """End with a message for a person, not a stack trace."""
    sys.exit(f"promtool.py: {message}")


def find():
    """The path of a promtool, if there is one."""
    return shutil.which("promtool") or shutil.which(UNPACKED / "usr" / "bin" / "promtool")


def fetch():
    """The path of a promtool, which is downloaded if there is none."""
    found = find()
    if found:
        return found
    if not shutil.which("apt-get"):
        fail("no promtool on PATH, and this system has no apt-get: install Prometheus by its own way")
    with tempfile.TemporaryDirectory() as scratch:
        if not download(scratch):
            # The lists of packages may be missing or old.
            subprocess.run(["apt-get", "update"], stdout=sys.stderr, check=False)
            if not download(scratch):
                fail("Debian's package prometheus could not be downloaded")
        package = glob.glob(f"{scratch}/prometheus_*.deb")[0]
        unpacked = f"{scratch}/unpacked"
        subprocess.run(["dpkg-deb", "--extract", package, unpacked], stdout=sys.stderr, check=True)
        # Moved as a whole, so that what was interrupted is not taken for a promtool.
        UNPACKED.parent.mkdir(exist_ok=True)
        shutil.move(unpacked, UNPACKED)
    return find() or fail("Debian's package prometheus has no promtool")


def download(directory):
    command = ["apt-get", "download", "prometheus"]
    return subprocess.run(command, cwd=directory, stdout=sys.stderr, check=False).returncode == 0


def check():
    promtool = find()
    if not promtool:
        print("!!!! there is no promtool: rules, alerts and dashboard are NOT CHECKED; `python3 tools/promtool.py fetch`")
        return
    run(promtool, "check", "config", str(RULES / "prometheus.yml"))
    run(promtool, "check", "rules", str(RULES / "recording.yml"), str(RULES / "alerts.yml"))
    run(promtool, "test", "rules", str(RULES / "tests.yml"))
    with tempfile.TemporaryDirectory() as scratch:
        for dashboard in sorted(DASHBOARDS.glob("*.json")):
            # JSON is YAML.
            rules = pathlib.Path(scratch) / dashboard.name
            rules.write_text(json.dumps(as_rules(dashboard)))
            run(promtool, "check", "rules", str(rules))


def as_rules(dashboard):
    """A file of recording rules with the expressions of a dashboard."""
    expressions = list(expressions_in(json.loads(dashboard.read_text())))
    if not expressions:
        fail(f"{dashboard} has no expressions")
    rules = [{"record": f"panel:{number}", "expr": plain(text)} for number, text in enumerate(expressions)]
    return {"groups": [{"name": dashboard.stem, "rules": rules}]}


def expressions_in(node):
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "expr":
                yield value
            else:
                yield from expressions_in(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions_in(value)


def plain(expression):
    """An expression without Grafana's variables."""
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return re.sub(r"\$\w+", ".*", expression)


def run(*command):
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["fetch", "check"])
    if parser.parse_args().command == "fetch":
        print(fetch())
    else:
        check()


if __name__ == "__main__":
    main()
