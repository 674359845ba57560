"""What every benchmark needs: processes of their own, the machine's name, figures with a spread."""

import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import date
from importlib.metadata import distributions, version


def in_fresh_process(program, *arguments):
    """Run `program --one …` alone; return the figures that it prints as its last line, as JSON."""
    command = [sys.executable, program, "--one", *map(str, arguments)]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(output.stdout.splitlines()[-1])


def description():
    """Return date, processor, cores and versions in a line."""
    names = ("tensorflow-cpu", "tensorflow")
    installed = next(name for name in names if list(distributions(name=name)))
    return (
        f"{date.today()}, {_processor()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, TensorFlow {version(installed)}, Keras {version('keras')}"
    )


def spread(values, digits=1):
    """Return the median of `values` with their range in brackets, as text."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def table(header, rows):
    """Return a Markdown table; `header` and each row are sequences of texts."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _processor():
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":")[1].strip()
    return platform.processor()
