"""OpenBLAS takes every AMD CPU of family 15 for one with 3DNow!; emulated ones have none, and it dies of its first instruction."""

import os


def choose():
    cpu = {}
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if not name.strip():
                break
            cpu[name.strip()] = value.strip()
    flags = cpu.get("flags", "").split()
    if cpu.get("vendor_id") == "AuthenticAMD" and cpu.get("cpu family") == "15" and "3dnow" not in flags:
        os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell" if {"avx2", "fma"} <= set(flags) else "Nehalem")


try:
    choose()
except OSError:  # without /proc there is nothing to go by
    pass
