"""Test cases that print one line each: `ok NAME`, `not ok NAME` or `skip NAME # reason`."""
import contextlib
import subprocess
import sys
import time
import traceback

CASES = []


class Skip(Exception):
    """Raised with the reason why a case cannot run on this host."""


def case(name):
    def add(function):
        CASES.append((name, function))
        return function
    return add


def until(what, condition, seconds=60):
    """Waits until condition() is true and returns what it gave. An exception counts as not yet, and is the reason if
    the time runs out. The sources are other programs' APIs without a way to be told, hence the short rounds."""
    end, last = time.monotonic() + seconds, None
    while True:
        try:
            value = condition()
            if value:
                return value
            last = value
        except Exception as error:  # pylint: disable=broad-except
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s; last: {last!r}")
        time.sleep(0.1)


@contextlib.contextmanager
def client(command, **options):
    """A program that is killed when the block ends, however that is: a failed case must not wait for it."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def equal(what, got, wanted):
    assert got == wanted, f"{what}: got {got!r}, wanted {wanted!r}"


def contains(what, got, wanted):
    assert wanted in got, f"{what}: got {got!r}, wanted it to have {wanted!r}"


def main(group, selected):
    """Runs the cases whose names contain one of `selected` (all if empty); exit code 1 if one failed."""
    failed = 0
    for name, function in CASES:
        if selected and not any(word in name for word in selected):
            continue
        begin = time.monotonic()
        try:
            function()
            print(f"ok {group}: {name} ({time.monotonic() - begin:.1f} s)", flush=True)
        except Skip as reason:
            print(f"skip {group}: {name} # {reason}", flush=True)
        except Exception as error:  # pylint: disable=broad-except
            failed += 1
            print(f"not ok {group}: {name} ({time.monotonic() - begin:.1f} s)", flush=True)
            lines = str(error) if isinstance(error, AssertionError) else traceback.format_exc()
            print("\n".join("    " + line for line in lines.splitlines()), flush=True)
    sys.exit(1 if failed else 0)
