"""Calls app.py, and passes what it prints to the host: a plugin has no output of its own.

`trainer plugin build` writes this file.
"""

import io
import json
import sys

import app

# Most characters of output: the host takes no more.
MOST = 8 * 1024


class Framework(app.Framework):
    def describe(self):
        return _called(super().describe)[0]

    def plan(self, job):
        plan, output = _called(super().plan, job)
        if output:
            extensions = json.loads(plan.extensions or "{}")
            plan.extensions = json.dumps(extensions | {"log": output[:MOST]})
        return plan


def _called(function, *arguments):
    """The answer of a call, and what it printed."""
    sys.stdout = sys.stderr = output = io.StringIO()
    return function(*arguments), output.getvalue()
