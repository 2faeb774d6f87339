# SPDX-License-Identifier: Apache-2.0
"""Runs gunicorn --preload, with a new worker for each request. The arguments, if there are any, are
the command that starts a server for this app instead."""
import json
import sys

import served


def app(environ, start_response):
    body = json.dumps(served.answer()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


if __name__ == "__main__":
    command = sys.argv[1:] or ["gunicorn", "--preload", "--workers=2", "--max-requests=1",
                               "--bind=unix:gunicorn", "gunicorn_preload:app"]
    with served.running(*command):
        served.wait_for_listener("gunicorn")
        served.compare(iter(served.get, None))
else:
    served.start()
