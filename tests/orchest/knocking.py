"""A program that a project runs to get at the platform that runs it. The standard library only.

``knocking.py once OUT URL REQUESTS [TOKEN]`` tries every way and writes what was answered to OUT, as
``{way: [[method, path, status, body], ...]}``; REQUESTS is JSON, ``[[method, path], ...]``.
``knocking.py each PIPE`` does so for each line of PIPE, which holds the same words as a JSON list, until one
is empty.
"""

import json
import os
import socket
import struct
import subprocess
import sys
from itertools import product
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

STOLEN = "stolen"
"""The name of every project that is created so."""


def ask(url, method, path, token):
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    body = json.dumps({"name": STOLEN}).encode() if method == "POST" else None
    request = Request(url + path, body, headers, method=method)
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=30) as answer:
            return [method, path, answer.status, answer.read().decode()]
    except HTTPError as error:
        return [method, path, error.code, error.read().decode()]


def ask_all(url, requests, token=""):
    return [ask(url, method, path, token) for method, path in json.loads(requests)]


def started(how, url, requests, **options):
    """What a process says that was started for it, or what that has started."""
    command = [sys.executable, __file__, how, url, requests]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=60, check=True, **options)
    return json.loads(done.stdout)  # the pipe ends when the last process that holds it does


def become_a_daemon():
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)


def delete_and_be_gone(url, requests):
    """Delete what is to be deleted, without waiting for the answers: once with an end, once with a reset."""
    target = urlsplit(url)
    deletions = [path for method, path in json.loads(requests) if method == "DELETE"]
    for path, lingering in product(deletions, (None, struct.pack("ii", 1, 0))):
        with socket.create_connection((target.hostname, target.port)) as connection:
            connection.sendall(f"DELETE {path} HTTP/1.1\r\nhost: {target.netloc}\r\n\r\n".encode())
            if lingering:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingering)


def knock(out, url, requests, token=""):
    delete_and_be_gone(url, requests)
    answered = {
        "itself": ask_all(url, requests),
        "with a token": ask_all(url, requests, token or "wrong"),
        "child": started("say", url, requests),
        "without environment": started("say", url, requests, env={}),
        "daemon": started("daemon", url, requests),
        "daemon without environment": started("daemon", url, requests, env={}, start_new_session=True),
    }
    new = Path(f"{out}.new")
    new.write_text(json.dumps(answered))
    new.rename(out)


def main(how, *words):
    if how == "once":
        knock(*words)
    elif how == "each":
        with Path(words[0]).open() as pipe:
            while words := json.loads(pipe.readline()):
                knock(*words)
    else:
        if how == "daemon":
            become_a_daemon()
        print(json.dumps(ask_all(*words)))


if __name__ == "__main__":
    main(*sys.argv[1:])
