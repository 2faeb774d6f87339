# SPDX-License-Identifier: Apache-2.0
"""Runs gunicorn --preload, with a new worker for each request."""
import http.client
import json
import socket

import served


def app(environ, start_response):
    body = json.dumps(served.answer()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def get():
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect("gunicorn")
    connection.request("GET", "/")
    return json.load(connection.getresponse())


if __name__ == "__main__":
    with served.running("gunicorn", "--preload", "--workers=2", "--max-requests=1",
                        "--bind=unix:gunicorn", "gunicorn_preload:app"):
        served.wait_for_listener("gunicorn")
        served.compare(iter(get, None))
else:
    served.start()
