#!/usr/bin/env python3
"""A scripted version-1 agent: speaks the wire as an installation of 2013 does, with its weaknesses.

Written from docs/protocol.md. It changes no account: users live in a dict in memory. What happens
is printed as JSON, one event a line, so that a test can read along.

    agent.py -k KEY generate-key [--bits N]
    agent.py -k KEY upload-key --url BASE --api-key KEY [-n NEW_KEY]
    agent.py -k KEY start --url BASE --host HOST --port PORT --api-key KEY
                          [--pinned] [--connections N]

BASE is e.g. http://127.0.0.1:2358/api/external/. --pinned offers only what the libraries of 2013
knew: SHA-1 key exchange, ssh-rsa, hmac-sha1. --connections N ends after N lost connections.
Exit: 0 done, 1 failed, 2 usage.
"""

import argparse
import base64
import getpass
import json
import os
import random
import re
import signal
import socket
import sys
import threading
import urllib.error
import urllib.request

import paramiko

VERSION = "0.1.2"
LIMIT = 32768
# The time within which the body of a message must be there, seconds.
BODY_TIME = 0.01
RETRY_TIME = 5
USERNAME = re.compile(r"[a-z_][a-z0-9_]{0,30}$")

PINNED_KEX = ("diffie-hellman-group1-sha1", "diffie-hellman-group-exchange-sha1")
PINNED_KEYS = ("ssh-rsa", "ssh-dss")
PINNED_CIPHERS = ("aes128-ctr", "aes256-ctr", "aes128-cbc", "aes256-cbc", "3des-cbc")
PINNED_MACS = ("hmac-sha1", "hmac-md5", "hmac-sha1-96", "hmac-md5-96")


class Drop(Exception):
    """The only answer to a message that cannot be read: the connection is dropped."""


def say(event, **details):
    sys.stdout.write(json.dumps({"event": event, **details}) + "\n")
    sys.stdout.flush()


# --- accounts, in memory -------------------------------------------------------------------------


class Accounts:
    """Users with sudo and key lines. Every answer is a pair of status and text."""

    def __init__(self):
        self.users = {}

    def add_user(self, name, message):
        if name in self.users:
            return 300, f"{name} already exists"
        self.users[name] = {"sudo": bool(message["sudo"]), "keys": []}
        return 200, f"{name} was created successfully"

    def remove_user(self, name, _message):
        if self.users.pop(name, None) is None:
            return 300, f"{name} does not exist"
        return 200, f"{name} was removed successfully"

    def update_user(self, name, message):
        user = self.users.get(name)
        if user is None:
            return 500, f"{name} does not exist"
        wanted, had = bool(message["sudo"]), user["sudo"]
        user["sudo"] = wanted
        if wanted:
            return 200, f"{name} was added to the sudo group successfully"
        if had:
            return 200, f"{name} was removed from the sudo group successfully"
        # The weakness as it was: nothing to do is a failure.
        return 500, f"gpasswd: user '{name}' is not a member of 'sudo'\n"

    def add_key(self, name, message):
        user, key = self.users.get(name), message["public_key"]
        if user is None:
            return 500, f"{name} does not exist"
        if any(key in line for line in user["keys"]):
            return 300, f"public key `{key}` for {name} already exists"
        user["keys"].append(key)
        return 200, f"added public key to {name} successfully"

    def remove_key(self, name, message):
        user, key = self.users.get(name), message["public_key"]
        if user is None:
            return 500, f"{name} does not exist"
        # The weakness as it was: text is compared, not keys.
        kept = [line for line in user["keys"] if key not in line]
        if kept == user["keys"]:
            return 300, f"public key for {name} does not exist"
        user["keys"] = kept
        return 200, f"removed public key from {name} successfully"


ACTIONS = {
    "add-user": (Accounts.add_user, "sudo"),
    "remove-user": (Accounts.remove_user, None),
    "update-user": (Accounts.update_user, "sudo"),
    "add-key": (Accounts.add_key, "public_key"),
    "remove-key": (Accounts.remove_key, "public_key"),
}


# --- messages ------------------------------------------------------------------------------------


def check_key(line):
    """Only RSA keys are known; the first word is not compared with the key itself."""
    parts = line.split(" ") if isinstance(line, str) else []
    if len(parts) < 2 or not parts[0].startswith("ssh-"):
        raise Drop("malformed public_key")
    try:
        blob = base64.b64decode(parts[1])
        name = blob[4:4 + int.from_bytes(blob[:4], "big")]
    except ValueError as error:
        raise Drop("public_key is not base64") from error
    if name != b"ssh-rsa":
        raise Drop(f"public_key is not RSA: {line[:30]}")


def parse(body):
    try:
        message = json.loads(body.decode("utf-8"))
    except ValueError as error:
        raise Drop(f"not JSON: {body[:60]!r}") from error
    if not isinstance(message, dict) or message.get("type") not in ("action", "feedback"):
        raise Drop("no type")
    if message["type"] == "feedback":
        return None
    if message.get("action") not in ACTIONS:
        raise Drop(f"unknown action {message.get('action')!r}")
    name = message.get("username")
    if not isinstance(name, str) or not USERNAME.match(name):
        raise Drop(f"bad username {name!r}")
    member = ACTIONS[message["action"]][1]
    if "mid" not in message or (member and member not in message):
        raise Drop("a member is missing")
    if member == "public_key":
        check_key(message["public_key"])
    return message


def read_message(channel):
    """One message, read as the original reads it: the body must come in one piece."""
    length = b""
    while True:
        character = channel.recv(1)
        if not character:
            return None
        if character == b":" and length:
            break
        length += character
        if not character.isdigit() or int(length) > LIMIT:
            raise Drop(f"bad length {length!r}")
    channel.settimeout(BODY_TIME)
    try:
        body = channel.recv(int(length))
        comma = channel.recv(1)
    except socket.timeout as error:
        raise Drop("the rest of a message did not come in time") from error
    finally:
        channel.settimeout(None)
    if len(body) != int(length) or comma != b",":
        raise Drop(f"{len(body)} of {length.decode()} bytes, then {comma!r}: cut or malformed")
    return body


def answer(accounts, body):
    message = parse(body)
    if message is None:
        return None
    status, text = ACTIONS[message["action"]][0](accounts, message["username"], message)
    mid = message["mid"] or str(random.getrandbits(64))
    say("action", action=message["action"], username=message["username"], status=status,
        mid=mid, message=message)
    return {"status": status, "type": "feedback", "feedback": text, "mid": mid}


# --- the connection ------------------------------------------------------------------------------


def transport_factory(pinned):
    def make(sock, **options):
        if pinned:
            sha2 = ["rsa-sha2-512", "rsa-sha2-256"]
            options["disabled_algorithms"] = {"pubkeys": sha2, "keys": sha2}
        transport = paramiko.Transport(sock, **options)
        transport.local_version = f"SSH-2.0-bastio-{VERSION}"
        if pinned:
            offer = transport.get_security_options()
            offer.kex = PINNED_KEX
            offer.ciphers = PINNED_CIPHERS
            offer.digests = PINNED_MACS
            offer.key_types = PINNED_KEYS
        return transport

    return make


class Agent:
    def __init__(self, options):
        self.options = options
        self.accounts = Accounts()
        self.client = None
        self.stopping = threading.Event()

    def host_key(self):
        request = urllib.request.Request(self.options.url + "backend/host_key", headers={
            "User-Agent": f"Bastio Agent v{VERSION}"})
        with urllib.request.urlopen(request) as response:
            line = json.load(response)["payload"]
        kind, blob = line.split(" ")
        if kind != "ssh-rsa":
            raise ValueError(f"the host key is no RSA key: {kind}")
        return paramiko.RSAKey(data=base64.b64decode(blob))

    def connect(self, host_key):
        options = self.options
        client = paramiko.SSHClient()
        name = options.host if options.port == 22 else f"[{options.host}]:{options.port}"
        client.get_host_keys().add(name, "ssh-rsa", host_key)
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        client.connect(
            options.host, options.port, username=options.api_key or getpass.getuser(),
            pkey=paramiko.RSAKey.from_private_key_file(options.agent_key),
            allow_agent=False, look_for_keys=False,
            transport_factory=transport_factory(options.pinned))
        return client

    def serve(self, client):
        transport = client.get_transport()
        say("connected", server=transport.remote_version, cipher=transport.remote_cipher,
            mac=transport.remote_mac, host_key=transport.host_key_type)
        channel = transport.open_session()
        channel.invoke_subsystem("bastio-agent")
        say("subsystem")
        while True:
            body = read_message(channel)
            if body is None:
                return "closed by the backend"
            feedback = answer(self.accounts, body)
            if feedback is not None:
                data = json.dumps(feedback).encode()
                channel.sendall(b"%d:%s," % (len(data), data))

    def run(self):
        host_key = self.host_key()
        say("host-key", line=f"ssh-rsa {host_key.get_base64()}")
        lost = 0
        while not self.stopping.is_set():
            worked = False
            try:
                self.client = self.connect(host_key)
                worked = True
                why = self.serve(self.client)
            except (Drop, OSError, EOFError, paramiko.SSHException) as error:
                why = f"{type(error).__name__}: {error}"
            finally:
                if self.client is not None:
                    self.client.close()
            if self.stopping.is_set():
                break
            say("lost", why=why, worked=worked)
            lost += 1
            if lost == self.options.connections:
                return 1
            # After a connection that worked the next follows at once.
            if not worked:
                self.stopping.wait(RETRY_TIME)
        say("stopped", users=self.accounts.users)
        return 0

    def stop(self, *_signal):
        self.stopping.set()
        if self.client is not None:
            self.client.close()


# --- commands ------------------------------------------------------------------------------------


def public_line(path):
    return f"ssh-rsa {paramiko.RSAKey.from_private_key_file(path).get_base64()}"


def generate_key(options):
    key = paramiko.RSAKey.generate(options.bits)
    descriptor = os.open(options.agent_key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        key.write_private_key(file)
    return 0


def upload_key(options):
    old, new = "", public_line(options.agent_key)
    if options.new_agent_key:
        old, new = new, public_line(options.new_agent_key)
    body = {"api_key": options.api_key, "public_key": new, "old_public_key": old}
    request = urllib.request.Request(
        options.url + "server/upload_key", json.dumps(body).encode(),
        {"Content-type": "application/json", "User-Agent": f"Bastio Agent v{VERSION}"})
    try:
        with urllib.request.urlopen(request) as response:
            status = response.status
    except urllib.error.HTTPError as error:
        status = error.code
    say("upload", status=status)
    return 0 if status == 200 else 1


def start(options):
    agent = Agent(options)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, agent.stop)
    return agent.run()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-k", "--agent-key", required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("generate-key")
    command.add_argument("--bits", type=int, default=2048)
    command.set_defaults(run=generate_key)
    command = commands.add_parser("upload-key")
    command.add_argument("--url", required=True)
    command.add_argument("--api-key")
    command.add_argument("-n", "--new-agent-key")
    command.set_defaults(run=upload_key)
    command = commands.add_parser("start")
    command.add_argument("--url", required=True)
    command.add_argument("-H", "--host", required=True)
    command.add_argument("-p", "--port", type=int, default=2357)
    command.add_argument("--api-key")
    command.add_argument("--pinned", action="store_true")
    command.add_argument("--connections", type=int, default=0)
    command.set_defaults(run=start)
    return parser.parse_args()


def main():
    options = parse_arguments()
    try:
        return options.run(options)
    except (OSError, ValueError, KeyError, paramiko.SSHException) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
