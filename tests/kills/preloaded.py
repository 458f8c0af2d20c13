"""What the server of processes imports once: a run then spends its time on what it does."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil

import idiolect

_LEFT_OUT = ("__main__", "idiolect.integrations", "idiolect.scale", "idiolect.serve")

for _module in pkgutil.walk_packages(idiolect.__path__, "idiolect."):
    if not _module.name.endswith(_LEFT_OUT[0]) and not _module.name.startswith(_LEFT_OUT[1:]):
        with contextlib.suppress(ImportError):  # of an extra that is not installed
            importlib.import_module(_module.name)
