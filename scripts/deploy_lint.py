"""Lints `examples/deploy`, each kind of file by a linter of its own. `make deploy-lint` installs those that pip has.

Those of the system (kubectl, systemd-analyze, nginx, haproxy) are run where they are installed; the others have to be
there. Prints a line for each, exits 1 if one complains.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent.parent / "examples" / "deploy"
PATH = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"))
YAML = "{extends: default, rules: {document-start: disable, line-length: {max: 120}}}"
NGINX = "pid {0}/pid; error_log stderr; events {{}} http {{ access_log off; client_body_temp_path {0}/a; "
NGINX += "proxy_temp_path {0}/b; fastcgi_temp_path {0}/c; scgi_temp_path {0}/d; uwsgi_temp_path {0}/e; include {1}; }}"


def commands(folder: Path) -> Iterator[list[str]]:
    """Each command, with the linter as its first word."""
    yield ["yamllint", "--strict", "-d", YAML, str(DEPLOY)]
    yield ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")]
    yield ["hadolint", *map(str, DEPLOY.glob("docker/*.Dockerfile"))]
    manifests = [*DEPLOY.glob("kubernetes/*.yaml")]
    if shutil.which("kubectl", path=PATH) is not None:
        built = folder / "built.yaml"
        built.write_text(subprocess.run(["kubectl", "kustomize", str(DEPLOY)], **RUN).stdout, "utf-8")
        manifests.append(built)
    yield ["kubernetes-validate", "--strict", *map(str, manifests)]
    # Programs that are in images and on other machines: only the units are looked at.
    units = []
    for unit in DEPLOY.glob("systemd/*.service"):
        units.append(folder / unit.name)
        units[-1].write_text(re.sub(r"/opt/harmony/bin/\w+", "/bin/true", unit.read_text("utf-8")), "utf-8")
    yield ["systemd-analyze", "verify", *map(str, units)]
    (folder / "nginx.conf").write_text(NGINX.format(folder, DEPLOY / "balancer" / "nginx.conf"), "utf-8")
    yield ["nginx", "-t", "-q", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    for servers in (DEPLOY / "balancer", DEPLOY / "kubernetes"):
        yield ["haproxy", "-c", "-q", "-f", str(DEPLOY / "balancer/haproxy.cfg"), "-f", str(servers / "servers.cfg")]


RUN = {"env": os.environ | {"PATH": PATH}, "capture_output": True, "text": True}
OF_THE_SYSTEM = ("systemd-analyze", "nginx", "haproxy")


def main() -> int:
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for command in commands(Path(folder)):
            name = command[0]
            if shutil.which(name, path=PATH) is None:
                good = good and name in OF_THE_SYSTEM
                print(f"{name}: not installed" + ("" if name in OF_THE_SYSTEM else "; make deploy-lint installs it"))
                continue
            done = subprocess.run(command, **RUN)
            good = good and not done.returncode
            print(f"{name}: {'ok' if not done.returncode else done.stdout + done.stderr}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
