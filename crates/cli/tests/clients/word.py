"""A client of /dev/liveupdate without any library: keeps a word over a kexec.

In the first kernel a child holds the session until the kexec kills it, and the parent ends; in the next kernel
the word is read back.
"""

import fcntl
import os
import signal
import struct

CREATE, RETRIEVE = 0xBA00, 0xBA01
PRESERVE_FD, RETRIEVE_FD, FINISH = 0xBA40, 0xBA41, 0xBA42
TOKEN, WORD = 7, b"word"


def call(fd, command, layout, *fields):
    """One ioctl; gives the second field of the structure, a descriptor where the command gives one."""
    argument = bytearray(struct.pack(layout, struct.calcsize(layout), *fields))
    fcntl.ioctl(fd, command, argument)
    return struct.unpack_from("=Ii", argument)[1]


def keep(device):
    session = call(device, CREATE, "=Ii64s", -1, b"python")
    memory = os.memfd_create("word")
    os.write(memory, WORD)
    call(session, PRESERVE_FD, "=IiQ", memory, TOKEN)
    if os.fork() == 0:
        while True:
            signal.pause()


def find(device):
    session = call(device, RETRIEVE, "=Ii64s", -1, b"python")
    assert os.readlink(f"/proc/self/fd/{session}") == "anon_inode:[luo_session] python"
    memory = call(session, RETRIEVE_FD, "=IiQ", -1, TOKEN)
    assert os.pread(memory, 100, 0) == WORD
    call(session, FINISH, "=Ii", 0)


device = os.open("/dev/liveupdate", os.O_RDWR)
if os.environ["LUOSIM_GENERATION"] == "1":
    keep(device)
else:
    find(device)
