"""Calls app.py, and passes what it prints and raises to the host: a plugin has no output of its own.

`trainer plugin build` writes this file.
"""

import io
import json
import sys

from componentize_py_types import Err
from wit_world.exports.framework import Description, LaunchPlan, Layout

import app

# Most characters of output, and of the traceback of an exception: the host takes no more.
MOST = 8 * 1024
MOST_OF_TRACEBACK = 4 * 1024


class Framework(app.Framework):
    def describe(self):
        try:
            description, _ = _called(super().describe)
        except BaseException:
            return _failed_description()
        return description

    def plan(self, job):
        try:
            plan, output = _called(super().plan, job)
        except Err:
            raise
        except BaseException:
            return _failed_plan()
        if output:
            extensions = json.loads(plan.extensions or "{}")
            plan.extensions = json.dumps(extensions | {"log": output[:MOST]})
        return plan


def _called(function, *arguments):
    """The answer of a call, and what it printed."""
    sys.stdout = sys.stderr = output = io.StringIO()
    return function(*arguments), output.getvalue()


def _failed_description():
    """What the host takes for an exception: a description without name and schema."""
    return Description(name="", version="", summary=_traceback(), args_schema="")


def _failed_plan():
    """What the host takes for an exception: a plan without a command."""
    return LaunchPlan(
        command=[],
        environment=[],
        layout=Layout("", "", "", "", "", ""),
        resolved_args="{}",
        warnings=[],
        extensions=json.dumps({"failure": _traceback()}),
    )


def _traceback():
    """The exception and its place, without source lines, because a plugin cannot read files."""
    kind, error, trace = sys.exc_info()
    lines = []
    while trace:
        code = trace.tb_frame.f_code
        lines.append(f'File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}')
        trace = trace.tb_next
    lines.append(f"{kind.__name__}: {error}")
    return "\n".join(lines)[-MOST_OF_TRACEBACK:]
