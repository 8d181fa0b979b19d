"""The outlets of an APC rack PDU behind snmpd: its "pass_persist" protocol on one side (snmpd.conf(5)), the testbed's
outlets (testbed/src/bmc/outlets.rs) on the other.

What it serves is what fence_apc_snmp uses of PowerNet-MIB: an outlet's name and state (rPDUOutletStatusTable), and its
switch (rPDUOutletControlTable). Outlets are numbered from 1, in the order of the file; their names are their plugs.
"""

import json
import socket
import sys

RPDU = (1, 3, 6, 1, 4, 1, 318, 1, 1, 12)
SWITCH = RPDU + (3, 3, 1, 1, 4)
NAME = RPDU + (3, 5, 1, 1, 2)
STATE = RPDU + (3, 5, 1, 1, 4)
ON, OFF = "1", "2"
VERBS = {ON: "on", OFF: "off"}

with open(sys.argv[1], encoding="utf-8") as file:
    PDU = json.load(file)
OIDS = sorted(column + (number,) for column in (SWITCH, NAME, STATE) for number in range(1, len(PDU["plugs"]) + 1))


def ask(verb, plug):
    with socket.create_connection((PDU["ip"], PDU["port"])) as outlets:
        outlets.sendall(("\t".join([PDU["username"], PDU["password"], verb, plug]) + "\n").encode())
        return outlets.makefile().readline().strip()


def get(oid):
    """What snmpd answers for an OID that is there."""
    plug = PDU["plugs"][oid[-1] - 1]
    if oid[:-1] == NAME:
        kind, value = "string", plug
    else:
        kind, value = "integer", {"on": ON, "off": OFF}.get(ask("status", plug))
    if value is None:
        return "NONE"
    return ".%s\n%s\n%s" % (".".join(map(str, oid)), kind, value)


def put(oid, value):
    if oid not in OIDS or oid[:-1] != SWITCH:
        return "not-writable"
    kind, _, value = value.partition(" ")
    if kind != "integer" or value not in VERBS:
        return "wrong-value"
    return "DONE" if ask(VERBS[value], PDU["plugs"][oid[-1] - 1]) == "done" else "inconsistent-value"


def answer(command, read):
    if command == "PING":
        return "PONG"
    oid = tuple(map(int, read().strip(".").split(".")))
    if command == "set":
        return put(oid, read())
    if command == "getnext":
        oid = next((later for later in OIDS if later > oid), None)
    return get(oid) if oid in OIDS else "NONE"


def read_line():
    line = sys.stdin.readline()
    if not line:
        sys.exit()
    return line.strip()


while True:
    # snmpd sends an empty line after the value of a set.
    if command := read_line():
        print(answer(command, read_line), flush=True)
