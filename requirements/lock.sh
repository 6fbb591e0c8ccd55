#!/bin/sh
# Writes runtime.txt and dev.txt anew from pyproject.toml: every package pinned with its hashes,
# no host named. torch is left out (see torch.txt), and so is the installer itself.
set -eu
cd "$(dirname "$0")/.."
python3 -m venv .cache/lock
.cache/lock/bin/python -m pip install --quiet pip-tools
for kind in runtime dev; do
    extra=""
    if [ "$kind" = dev ]; then extra="--extra dev --constraint requirements/runtime.txt"; fi
    # shellcheck disable=SC2086
    .cache/lock/bin/pip-compile --quiet --generate-hashes --strip-extras --no-header \
        --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
        --no-emit-options --unsafe-package torch --unsafe-package setuptools \
        --unsafe-package pip $extra --output-file "requirements/$kind.txt" pyproject.toml
    # The trailing warning names what is left out on purpose.
    sed -i '/^# WARNING/,$d' "requirements/$kind.txt"
done
