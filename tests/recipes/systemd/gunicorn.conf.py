# SPDX-License-Identifier: Apache-2.0
bind = "unix:gunicorn"
preload_app = True
workers = 2
max_requests = 1
raw_env = [
    "LD_PRELOAD=/usr/lib/forksafe/libforksafe.so",
]
