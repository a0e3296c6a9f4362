"""What a NumPy program that knows nothing of the heap gets from `serry run --heap`.

   heap.py LIBRARY     in each of two ranks

The evidence is the kernel's: a rank maps the other's memory for reading only, and pages of such a
mapping are resident only if the rank has read there. Skips with 77 where it cannot be told."""
import ctypes
import multiprocessing
import os
import re
import subprocess
import sys

try:
    import numpy as np
except ImportError:
    print("skipped: there is no NumPy here")
    sys.exit(77)

COUNT = 1 << 20
F64, SUM = 1, 0


def check(what, good):
    if not good:
        print("rank", os.environ["SERRY_RANK"], "failed:", what, flush=True)
        os._exit(1)


def mapped(permissions):
    """Resident KiB of this process's mappings of the heap with such permissions, and their ranges."""
    resident, ranges, inside = 0, [], False
    for line in open("/proc/self/smaps"):
        head = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ", line)
        if head:
            inside = "memfd:serry-heap" in line and head[3] == permissions
            if inside:
                ranges.append((int(head[1], 16), int(head[2], 16)))
        elif inside and line.startswith("Rss:"):
            resident += int(line.split()[1])
    return resident, ranges


def is_shared(array):
    return any(a <= array.ctypes.data < b for a, b in mapped("rw-s")[1])


def collectives(lib, comm, rank, size):
    first = np.arange(COUNT, dtype=np.float64) + rank
    check("a large array lies in the heap", is_shared(first))
    check("a small one does not", not is_shared(np.zeros(100)))
    for turn in range(3):
        second = np.empty(COUNT)
        send = first * (turn + 1)
        code = lib.serry_allreduce(send.ctypes.data_as(ctypes.c_void_p),
                                   second.ctypes.data_as(ctypes.c_void_p),
                                   ctypes.c_size_t(COUNT), F64, SUM, comm)
        check("allreduce returns %d" % code, code == 0)
        wanted = (np.arange(COUNT) * size + size * (size - 1) / 2) * (turn + 1)
        check("the sum is right", np.array_equal(second, wanted))
        if turn == 0:
            read = mapped("r--s")[0]
            check("it has read the other's memory directly: %d KiB" % read,
                  read >= COUNT * 8 / size / 1024)
    code = lib.serry_broadcast(first.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(COUNT), F64, 0,
                               comm)
    check("broadcast", code == 0 and np.array_equal(first, np.arange(COUNT)))
    return first


def child_of(array):
    array[:] = 7
    more = np.full(COUNT, 3.0)
    return float(array.sum() + more.sum())


def forks(array):
    """A child has a copy, whatever either writes, and can allocate and fork itself."""
    kept, wanted = array.copy(), float(10 * COUNT)
    to_child, to_parent = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(to_child[0], 1)  # the parent has written to its own
        good = np.array_equal(array, kept) and not mapped("rw-s")[1]
        good = good and child_of(array) == wanted
        inner = os.fork()
        if inner == 0:
            os._exit(0 if child_of(array) == wanted else 1)
        good = os.waitpid(inner, 0)[1] == 0 and good
        os.write(to_parent[1], b"x")
        os._exit(0 if good else 1)
    array[:] = -1
    os.write(to_child[1], b"x")
    os.read(to_parent[0], 1)
    check("os.fork: the child sees what was there", os.waitpid(pid, 0)[1] == 0)
    check("os.fork: the parent's memory is its own", np.all(array == -1))
    array[:] = kept
    with multiprocessing.get_context("fork").Pool(2) as pool:
        check("multiprocessing.Pool", pool.map(child_of, [array, array]) == [wanted, wanted])
    process = multiprocessing.get_context("fork").Process(target=child_of, args=(array,))
    process.start()
    process.join()
    check("multiprocessing.Process", process.exitcode == 0 and np.array_equal(array, kept))
    said = subprocess.run([sys.executable, "-c", "print(len(bytearray(10**7)))"],
                          capture_output=True, text=True, check=True)
    check("subprocess: " + said.stderr, said.stdout == "10000000\n" and said.stderr == "")
    check("os.system", os.system("exit 3") == 3 << 8)
    check("nothing has changed", np.array_equal(array, kept))


def main():
    lib = ctypes.CDLL(sys.argv[1])
    comm = ctypes.c_void_p()
    code = lib.serry_init(None, ctypes.byref(comm))
    check("init returns %d" % code, code == 0)
    rank, size = lib.serry_rank(comm), lib.serry_size(comm)
    array = collectives(lib, comm, rank, size)
    forks(array)
    collectives(lib, comm, rank, size)
    check("finalize", lib.serry_finalize(ctypes.byref(comm)) == 0)


main()
